"""Presets and overrides."""

from __future__ import annotations

import pytest

from recdistill.continual.settings import PRESETS, TUNED, CCDSettings, over, settings_of
from recdistill.errors import SettingsError, UnknownName


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset):
    assert isinstance(settings_of(preset), CCDSettings)


def test_the_official_code_is_a_preset():
    c = settings_of("compat")
    assert (c.update.replay.reference, c.update.replay.masks) == ("distilled", "source")
    assert (c.proxies.mode, c.distil.layer, c.update.training.decay) == ("weights", "raw", "all")
    assert (c.teach.contrast.how, c.teach.contrast.anchors) == ("mean", None)
    assert (c.update.initial.who, c.update.initial.missing) == ("newest", "zero")
    assert c.teach.replay.student == 5, "what a preset does not name stays"
    assert c.teach.replay.period == 5.0


def test_tables_of_a_vae_cannot_be_turned():
    for mode in ("scores", "weights"):
        settings_of(settings={"student": {"name": "vae"}, "proxies": {"mode": mode}})
    wrong = r"'ccd': student\.name = \"vae\" and proxies\.mode = \"aligned\" do not .* give proxies\.mode = \"scores\""
    with pytest.raises(SettingsError, match=wrong) as told:
        settings_of(settings={"student": {"name": "vae"}, "proxies": {"mode": "aligned"}})
    assert "got" not in str(told.value), "the whole table would be no help"


def test_the_minimal_configuration_of_the_sheet_is_the_default():
    c = settings_of()
    assert (c.distil.near, c.distil.weight, c.distil.training.lr, c.distil.training.batch) == (40, 0.01, 5e-3, 1024)
    assert (c.update.training.lr, c.update.training.batch, c.update.training.weight_decay) == (1e-3, 2048, 1e-4)
    assert (c.update.initial.neighbours, c.proxies.stability, c.proxies.plasticity) == (20, 0.9, 0.0)
    r = c.update.replay
    assert (r.depth, r.sharpness, r.stability, r.plasticity, r.weight, r.period) == (100, 1e-4, 3, 5, 0.5, 10)
    assert (c.update.training.every, c.update.training.patience, c.update.training.epochs) == (5, 2, 100)


def test_a_block_can_be_set_by_itself_and_a_wrong_key_is_an_error():
    c = over(settings_of(), TUNED[4])
    assert (c.update.replay.depth, c.update.replay.stability, c.teach.replay.student) == (50, 1, 1)
    with pytest.raises(UnknownName, match="Did you mean 'compat'"):
        settings_of("compt")
    with pytest.raises(SettingsError, match=r"Unknown setting 'ccd\.update\.replay\.dept'"):
        settings_of(settings={"update": {"replay": {"dept": 3}}})
