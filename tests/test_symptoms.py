"""A model that says what is wrong with it is heard: on standard error, in run.json, on the page of the run."""

import json

import pofx
from pofx import discovery, report


def _ailing(**told):
    """An autoencoder with symptoms from the middle of training on."""
    base = discovery.model("autoencoder")

    class Ailing(base):
        def symptoms(self, batch):
            assert not self.training
            assert len(batch.x) > 0
            return told if float(self.progress) > 0.5 else {}

    return Ailing


def test_a_symptom_is_told_once_and_kept(tmp_path, capsys):
    model = _ailing(languor="it does nothing; give it a reason")
    run = pofx.train(model, "digits", run=tmp_path / "run", steps=20, quiet=True, report=False)
    assert capsys.readouterr().err.count("languor: it does nothing; give it a reason") == 1
    assert json.loads((run.path / "run.json").read_text())["symptoms"] == {"languor": "it does nothing; give it a reason"}


def test_a_healthy_model_says_nothing(tmp_path, capsys):
    run = pofx.train(_ailing(), "digits", run=tmp_path / "run", steps=20, quiet=True, report=False)
    assert "warning" not in capsys.readouterr().err
    assert "symptoms" not in json.loads((run.path / "run.json").read_text())


def test_what_was_so_for_a_while_only_stands_on_the_page_with_its_moves(tmp_path, monkeypatch):
    def languor(self, batch):
        return {"languor": "it did nothing"} if 0.2 < float(self.progress) < 0.7 else {}

    monkeypatch.setattr(discovery.model("autoencoder"), "symptoms", languor)
    run = pofx.train("autoencoder", "digits", run=tmp_path / "run", steps=40, quiet=True)
    assert not run.info.get("symptoms")
    (sentence,) = report.past(run)
    first, last = (int(word.rstrip(",")) for word in sentence.split() if word.rstrip(",").isdigit())
    assert 8 <= first < last <= 28
    assert "languor: it did nothing" in (run.path / "report.html").read_text()
    assert not report.past(pofx.train(_ailing(), "digits", run=tmp_path / "fine", steps=20, quiet=True, report=False))
