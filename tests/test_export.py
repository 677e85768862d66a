"""Encoders for other programs: the same embeddings from ONNX Runtime, and from weights in half the space."""

import numpy as np
import onnxruntime
import pytest

from moleclip import drawing, encoder
from moleclip.apply import cli, export

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "C[C@H](N)C(=O)O"]


@pytest.mark.parametrize(
    ("tower", "size"),
    [("small", 224), pytest.param("timm-tf_efficientnet_lite0", 96, marks=pytest.mark.long)],
)
def test_onnx_runtime_computes_the_same_embeddings(tmp_path, recwarn, tower, size):
    model = encoder.load(f"{tower}/random", seed=1, size=size).eval()
    model.normalize = True
    file = export.export(model.save(tmp_path / "encoder"), tmp_path / "encoder.onnx")
    assert not [warning for warning in recwarn if "training mode" in str(warning.message)]
    images = np.stack([drawing.draw(text, size=size) for text in SMILES])
    session = onnxruntime.InferenceSession(file)
    for batch in (images, images[:1]):
        (found,) = session.run(None, {"drawings": batch})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, model.embed(batch).numpy(), atol=1e-4 * np.abs(found).max())


def test_half_the_space_keeps_the_embeddings(tmp_path):
    model = encoder.load("timm-tf_efficientnet_lite0/random", seed=1, size=96).eval()
    model.normalize = True
    whole = model.save(tmp_path / "whole", {"commit": "abc"})
    assert cli.main(["export", str(whole), "--out", str(tmp_path / "half")]) == 0
    sizes = [(tmp_path / name / encoder.WEIGHTS).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    assert encoder.provenance(tmp_path / "half") == {"commit": "abc"}
    images = np.stack([drawing.draw(text, size=96) for text in SMILES])
    cosines = (encoder.load(tmp_path / "half").eval().embed(images) * model.embed(images)).sum(dim=1)
    assert cosines.min() > 0.9999


def test_nothing_is_overwritten(tmp_path, capsys):
    model = encoder.load("small/random").save(tmp_path / "encoder")
    assert cli.main(["export", str(model), "--out", str(model)]) == 1
    assert "is there already" in capsys.readouterr().err
