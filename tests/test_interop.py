"""Files that other programs read and write: our products in Ptychodus' reader and writer, foreign names in NPZ."""

from __future__ import annotations

import bz2
import gzip
import io

import numpy as np
import pytest
from ptychodus.api.io import StandardFileLayout, load_diffraction_data
from ptychodus.api.reconstruct import prepare_reconstruct_input
from ptychodus.plugins.h5_product_file import H5ProductFileIO

from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import Base, MeasuredScan
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.experiment import Experiment, parse_experiment
from fly64_nb.data.product import write_diffraction, write_partner, write_product
from fly64_nb.data.readers.reader import read_base_file
from fly64_nb.data.reconstruction import Reconstruction, read_reconstruction, write_reconstruction
from fly64_nb.datasets import make_datasets
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.physics.photons import photon_counts
from fly64_nb.physics.scan import canvas
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout

DENSE = Condition(1e4, "dense", "test")


@pytest.mark.parametrize("method", ["LSQML", "PINN", "Supervised"])
def test_ptychodus_reads_our_product(study, method):
    layout = Layout(study)
    product = H5ProductFileIO().read(layout.product(DENSE, method))
    found = read_reconstruction(layout.reconstruction(DENSE, method))
    data = validate_dataset_contract(layout.dataset(DENSE))
    assert np.array_equal(product.object_.get_array()[0], found["object"])
    probe = product.probes.get_array().reshape(data.window, data.window)
    scale = np.vdot(found["probe"], probe) / np.vdot(found["probe"], found["probe"])
    assert np.allclose(probe, scale * found["probe"], atol=1e-5 * np.abs(probe).max())
    y, x = data.known_y - found["origin"][0], data.known_x - found["origin"][1]
    light = diffraction_intensity(found["object"], probe, y, x).sum((1, 2)).mean()
    assert light == pytest.approx(data.dose, rel=0.05) and product.metadata.probe_photon_count == data.dose
    geometry = product.object_.get_geometry()
    corner = (
        geometry.center_y_m / geometry.pixel_height_m - geometry.height_px / 2,
        geometry.center_x_m / geometry.pixel_width_m - geometry.width_px / 2,
    )
    assert corner == pytest.approx(found["origin"].tolist())
    points = list(product.probe_positions)
    assert [p.index for p in points] == data.scan_index.tolist()
    on_object = geometry.map_probe_positions_to_object_y_px(product.probe_positions)  # as Ptychodus places them
    # pty-chi and Ptychodus mean the geometric middle of a window, start + (N - 1) / 2; ours is its pixel N / 2
    assert np.allclose(on_object, data.y - found["origin"][0] - 0.5, atol=1e-6)
    assert len(product.losses) == len(found["loss"])


def test_ptychodus_keeps_the_physics_and_that_a_pixel_is_unknown(tmp_path):
    base, flight = builtin_base(40, 50, 8, window=32), Experiment(10e3, 2.0, None, 0.25, 4e4, 0.3)
    modes = np.stack([base.probe, base.probe[::-1] / 3])
    for pixel in (10e-9, None):
        ours, theirs = tmp_path / "ours.h5", tmp_path / "theirs.h5"
        write_product(
            ours, base.object, modes, base.y, base.x, (0, 0), pixel, "mine", "a comment.", np.array([3.0, 1.0]),
            np.arange(len(base.y))[::-1], 1e4, flight,
        )  # fmt: skip
        product = H5ProductFileIO().read(ours)
        about = product.metadata
        assert (about.photon_energy_eV, about.detector_distance_m, about.exposure_time_s) == (10e3, 2.0, 0.25)
        assert (about.mass_attenuation_m2_per_kg, about.probe_photon_count, about.far_field) == (0.3, 1e4, True)
        H5ProductFileIO().write(theirs, product)
        for path in (ours, theirs):
            read = read_base_file(path)
            assert read.pixel_size_m == (None if pixel is None else pytest.approx(pixel))
            assert np.allclose(read.y, base.y) and np.allclose(read.x, base.x) and read.modes.shape == (2, 32, 32)
            assert np.array_equal(read.object, base.object)
            known = read.experiment
            assert (known.energy_eV, known.distance_m, known.exposure_s, known.photons_per_s) == (10e3, 2.0, 0.25, 4e4)


def test_ptychodus_reads_our_patterns(tmp_path):
    counts = np.random.default_rng(0).poisson(3, (5, 8, 8)).astype(np.uint32)
    mask = np.ones((8, 8), bool)
    mask[2, 3] = False
    write_diffraction(tmp_path / "diffraction.h5", counts, np.array([4, 2, 9, 0, 1]), (75e-6, 70e-6), mask)
    read = load_diffraction_data(tmp_path / "diffraction.h5")
    assert np.array_equal(read._patterns, counts) and np.array_equal(read._indexes, [4, 2, 9, 0, 1])
    assert np.array_equal(read._bad_pixels, ~mask)
    assert (read.get_pixel_geometry().height_m, read.get_pixel_geometry().width_m) == (75e-6, 70e-6)


@pytest.mark.parametrize("told", ["", "energy_keV=8.2,distance_m=2,detector_um=75,photons_per_s=1e9"])
def test_ptychodus_goes_on_from_a_product_and_its_partner(tmp_path, told):
    data = make_datasets(builtin_base(180, 80, 6, window=32, experiment=parse_experiment(told)), 1e4)["test"]
    origin, shape = canvas(data.known_y, data.known_x, data.window)
    found = Reconstruction(np.ones(shape, np.complex64), data.known_probe, origin, np.zeros(0), 1.0, "cpu", {})
    for method in ("LSQML", "PINN"):
        product = tmp_path / "test" / method / "product.h5"
        write_reconstruction(product.with_name("reconstruction.npz"), product, found, data, method, {})
        write_partner(product, data)
        # one folder with both files, by their names, is what its batch mode wants
        patterns = load_diffraction_data(StandardFileLayout.DIFFRACTION.path(product.parent))
        read = H5ProductFileIO().read(StandardFileLayout.PRODUCT.path(product.parent))
        given = prepare_reconstruct_input(patterns, read)
        assert np.array_equal(given.diffraction_patterns, data.counts().astype(np.uint16))
        assert np.array_equal(given.product.probe_positions.get_indexes(), data.scan_index)
        pixel = given.product.probes.get_geometry().pixel_width_m
        y, x = (
            given.product.probe_positions.get_coordinates_y_m(),
            given.product.probe_positions.get_coordinates_x_m(),
        )
        assert np.allclose(y / pixel, data.known_y) and np.allclose(x / pixel, data.known_x)
        if told:
            side, about = patterns.get_pixel_geometry().width_m, read.metadata
            assert side == 75e-6 and about.exposure_time_s == pytest.approx(1e-5)
            assert pixel == pytest.approx(about.photon_wavelength_m * about.detector_distance_m / (32 * side))


def test_a_product_that_ptychodus_wrote_is_a_base(study, tmp_path):
    layout = Layout(study)
    H5ProductFileIO().write(tmp_path / "theirs.h5", H5ProductFileIO().read(layout.product(DENSE, "LSQML")))
    base = read_base_file(tmp_path / "theirs.h5")
    found = read_reconstruction(layout.reconstruction(DENSE, "LSQML"))
    data = validate_dataset_contract(layout.dataset(DENSE))
    assert isinstance(base, Base) and np.array_equal(base.object, found["object"])
    assert base.pixel_size_m == pytest.approx(10e-9)
    assert np.allclose(base.y, data.y - found["origin"][0]) and np.allclose(base.x, data.x - found["origin"][1])


@pytest.mark.parametrize("pack", [lambda b: b, bz2.compress, gzip.compress], ids=["plain", "bzip2", "gzip"])
@pytest.mark.parametrize("layout", ["tike", "pty-chi", "fly64"])
def test_scans_under_foreign_names(tmp_path, layout, pack):
    base = builtin_base(40, 50, 8, window=32)
    counts = photon_counts(
        diffraction_intensity(base.object, base.probe, base.y, base.x), 1e5, np.random.default_rng(0)
    )
    corner = np.fft.ifftshift(counts, axes=(1, 2))
    arrays = {
        "tike": {
            "data": corner[None].astype(np.float32),
            "scan": np.stack([base.y - 60, base.x - 60], 1)[None].astype(np.float32),
            "probe": base.probe[None, None, None],
        },
        "pty-chi": {
            "dp": counts,
            "probe": base.probe[None, None],
            "position_y_px": base.y - 60,
            "position_x_px": base.x - 60,
        },
        "fly64": {
            "diff3d": np.moveaxis(counts, 0, -1).astype(np.uint16),
            "probeGuess": base.probe,
            "objectGuess": base.object,
            "xcoords": base.x,
            "ycoords": base.y,
        },
    }[layout]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (tmp_path / "scan.npz").write_bytes(pack(buffer.getvalue()))
    read = read_base_file(tmp_path / "scan.npz")
    assert isinstance(read, Base if layout == "fly64" else MeasuredScan)
    assert np.array_equal(read.counts, counts) and np.allclose(np.diff(read.y), np.diff(base.y), atol=1e-4)
    assert read.source["zero_frequency"] == ("corner" if layout == "tike" else "centre")
    if layout == "fly64":
        assert np.array_equal(read.object, base.object)


def test_a_canonical_dataset_is_a_base(study):
    path = Layout(study).dataset(Condition(1e4, "baseline", "test"))
    base, data = read_base_file(path), validate_dataset_contract(path)
    assert isinstance(base, Base) and base.counts is None and np.array_equal(base.y, data.y)
    assert base.source["metadata"]["nphotons"] == 1e4
