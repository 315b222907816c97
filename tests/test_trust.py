"""What comes from files and from people is data: to papermill no code, in the report no HTML, no Markdown, no link."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from typer.testing import CliRunner

from fly64_nb.cli import app
from fly64_nb.data.base import read_base, write_base
from fly64_nb.data.experiment import parse_experiment
from fly64_nb.data.files import write_json
from fly64_nb.data.readers.understand import read_options
from fly64_nb.design import make_base, read_study, write_study
from fly64_nb.engine.graph import run_job
from fly64_nb.engine.job import JobResult
from fly64_nb.engine.notebook import LANGUAGE, run_notebook
from fly64_nb.engine.record import record_not_run
from fly64_nb.report import build_report_job
from fly64_nb.results.example import example_study
from fly64_nb.results.run import Request, prepare_study
from fly64_nb.results.study import open_study
from fly64_nb.results.study_file import request_for
from fly64_nb.show.site import publish_report
from fly64_nb.study.layout import Layout

CODE = {
    "text": '"""\nimport os\nopen("pwned", "w").write("x")\n"""',
    "quotes": "'''\nopen('pwned', 'w')\n'''",
    "backslash": "\\",
    "nested": {"k\"\n'); open('pwned', 'w') #": ["{text}", "%%bash\ntouch pwned", "!touch pwned", "\\N{BULLET}"]},
    "odd": "\u2028é𝒳\r\n# x\x7f",
    "braces": "{0.__class__}",
    "nothing": None,
    "numbers": [1e-300, -1, True],
}


@pytest.mark.parametrize("folder", ["plain", "a {text} b", "{0.__class__}", "'; touch pwned; '"])
def test_parameters_reach_papermill_as_data(tmp_path, folder):
    root = tmp_path / folder
    root.mkdir()
    given = nbformat.v4.new_code_cell("\n".join(f"{name} = 0" for name in CODE), metadata={"tags": ["parameters"]})
    kept = f"import json, pathlib\npathlib.Path('out.json').write_text(json.dumps([{', '.join(CODE)}]))"
    notebook = nbformat.v4.new_notebook(cells=[given, nbformat.v4.new_code_cell(kept)])
    notebook.metadata.update({"language_info": LANGUAGE, "kernelspec": {"name": "python3", "language": "python"}})
    nbformat.write(notebook, root / "in.ipynb")
    run_notebook(root / "in.ipynb", root / "out.ipynb", CODE, root)
    assert json.loads((root / "out.json").read_text()) == list(CODE.values())
    assert not list(tmp_path.rglob("pwned"))


HOSTILE = (
    "x<script>pwned()</script><img src=x onerror=pwned()>[a](javascript:pwned()) ![b](http://pwned.example/c.png)"
    '\n\n# pwned\n{{< include /etc/passwd >}} $\\frac$ "><b onclick=pwned()>`pwned`{=html}'
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """The report of a made-up study whose files say hostile things, and of an experiment."""
    root = example_study(tmp_path_factory.mktemp("hostile") / "study")
    base = read_base(Layout(root).base)
    said = {"kind": HOSTILE, "file": HOSTILE, "understood": [HOSTILE]}
    known = parse_experiment("energy_keV=8.2,distance_m=2,detector_um=75,photons_per_s=1e9")
    write_base(Layout(root).base, replace(base, source=said, experiment=known, pixel_size_m=63e-9))
    record = read_study(root)
    written = json.loads(Layout(root).study_json.read_text())
    write_json(Layout(root).study_json, {**written, "base_source": said, "environment": {"python": HOSTILE}})
    job = open_study(root).job(1e4, "dense", "test")
    for path in job.outputs:
        path.unlink(missing_ok=True)
    record_not_run(JobResult(job, "left out", detail=HOSTILE))
    job.log_path.write_text(HOSTILE)
    other = open_study(root).job(1e3, "dense", "test")
    cell = nbformat.v4.new_code_cell("print(name)", outputs=[nbformat.v4.new_output("stream", text=HOSTILE)])
    trace = nbformat.v4.new_output("error", ename="E", evalue=HOSTILE, traceback=[HOSTILE])
    cells = [nbformat.v4.new_code_cell(f"name = {HOSTILE!r}", metadata={"tags": ["injected-parameters"]}), cell]
    cells.append(nbformat.v4.new_code_cell("fail()", outputs=[trace]))
    other.executed_notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), other.executed_notebook)
    assert record["design"].doses == (1e3, 1e4)
    done = run_job(build_report_job(root))
    assert done.status == "done", done.detail
    publish_report(root, quarto="")
    return root


def test_nothing_from_a_file_is_markup_in_the_report(hostile):
    pages = sorted((hostile / "report" / "_site").rglob("*.html"))
    assert len(pages) > 1
    for path in pages:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        assert not [s for s in page.find_all("script") if "pwned()" in s.get_text()], path
        for tag in page.find_all(True):
            assert not [name for name in tag.attrs if name.startswith("on") and "pwned" in str(tag[name])], (path, tag)
            led = f"{tag.get('href', '')} {tag.get('src', '')}"
            assert "javascript:" not in led and "pwned.example" not in led, (path, tag)
            assert tag.name not in ("h1", "h2", "h3") or tag.get_text().strip() != "pwned", (path, tag)
        assert "root:x:0" not in page.get_text()


def test_what_files_say_is_shown_as_it_is(hostile):
    page = BeautifulSoup((hostile / "report" / "_site" / "index.html").read_text(encoding="utf-8"), "html.parser")
    shown = " ".join(page.get_text().split())
    assert "x<script>pwned()</script><img src=x onerror=pwned()>[a](javascript:pwned())" in shown
    assert "{{< include /etc/passwd >}}" in shown


def test_the_experiment_stands_in_the_report_and_in_the_answer(hostile):
    page = BeautifulSoup((hostile / "report" / "_site" / "index.html").read_text(encoding="utf-8"), "html.parser")
    table = next(t for t in page.find_all("table") if t.caption and t.caption.get_text() == "The experiment")
    rows = {tr.th.get_text(): tr.td.get_text() for tr in table.tbody.find_all("tr")}
    assert rows["photon energy"] == "8.2 keV" and rows["detector pixel"] == "75 µm" and rows["object pixel"] == "63 nm"
    assert rows["exposure for 1000 photons on the object"] == "1 µs"
    assert rows["exposure for 10000 photons on the object"] == "10 µs"
    assumed = next(p for p in page.find_all("p") if p.get_text().startswith("Assumed"))
    assert "of the experiment: photon energy 8.2 keV, wavelength 0.1512 nm" in assumed.get_text()


def test_an_experiment_is_told_without_a_file(tmp_path):
    root, run = tmp_path / "s", CliRunner(env={"COLUMNS": "200"})
    told = "energy_keV=8.2,distance_m=2,detector_um=75"
    done = run.invoke(app, ["init", str(root), "--profile", "tiny", "--methods", "LSQML", "--experiment", told])
    assert done.exit_code == 0, done.output
    text = (root / "study.toml").read_text()
    assert "[experiment]" in text and "\nenergy_keV = 8.2 " in text and "# photons_per_s =" in text
    (root / "study.toml").write_text(text.replace("# photons_per_s = ", "photons_per_s = 1e9"))
    ready = prepare_study(root, request_for(root, Request()))
    assert "object pixel of 126 nm, as energy, distance and detector pixel give" in ready.notes[0]
    assert "not the 10 nm" in ready.notes[0] and ready.job.parameters["reading"] == ready.reading
    base, _ = make_base("tiny", 32, options=read_options(ready.reading))
    write_study(root, ready.design, base, reading=ready.reading)
    record = read_study(root)
    assert record["experiment"]["photons_per_s"] == 1e9 and base.experiment.energy_eV == 8200.0
    assert base.pixel_size_m == pytest.approx(126e-9, rel=1e-3) and record["base_source"]["understood"]
    assert prepare_study(root, Request(reading={"experiment": told})).job == ready.job  # the same again
    for other in ("energy_keV=9", "attenuation_m2_per_kg=1"):
        refused = run.invoke(app, ["run", str(root), "--dry-run", "--experiment", other])
        assert refused.exit_code == 2 and "held fixed" in refused.output, refused.output
    far = "energy_keV=1,distance_m=1e7,detector_um=1"
    for wrong, reason in {"energy=8": "number for one of energy_keV", far: "needed is a square one of 1 pm"}.items():
        refused = run.invoke(app, ["init", str(tmp_path / "t"), "--experiment", wrong])
        assert refused.exit_code == 2 and reason in refused.output, refused.output
    assert not (tmp_path / "t").exists()
