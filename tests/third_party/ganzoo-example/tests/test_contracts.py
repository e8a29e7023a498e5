"""Every plugin of this package keeps ganzoo's contracts."""

import pytest
from ganzoo_example.calibration import Calibration
from ganzoo_example.discs import discs
from ganzoo_example.huber import Huber
from ganzoo_example.recovery import Recovery
from ganzoo_example.shallow import Shallow

from ganzoo.api import DataError, PluginError, Spec
from ganzoo.testing import checks, parametrize_with_checks


@parametrize_with_checks("architecture", {"shallow": Shallow})
def test_architecture(check):
    check.run()


@parametrize_with_checks("loss", {"huber": Huber})
def test_loss(check):
    check.run()


@parametrize_with_checks("regularizer", {"calibration": Calibration})
def test_regularizer(check):
    check.run()


@parametrize_with_checks("game", {"recovery": Recovery})
def test_game(check):
    check.run()


@pytest.mark.parametrize("labels", [False, True])
def test_dataset(labels):
    for check in checks("dataset", discs(labels=labels, channels=3)):
        check.run()


def test_what_cannot_work_is_refused():
    refused = [
        (Huber, {"delta": 0.0}),
        (Calibration, {"momentum": 1.0}),
        (Recovery, {"latent": 0.0}),
        (Shallow, {"width": 0}),
    ]
    for plugin, options in refused:
        with pytest.raises(PluginError):
            plugin(**options)
    with pytest.raises(DataError):
        discs(count=1)
    with pytest.raises(PluginError):
        Shallow().encoder(Spec(shape=(16000,)))
