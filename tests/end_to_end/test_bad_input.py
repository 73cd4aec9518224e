"""Bad files among good ones, through the commands: each is named with its error, the others go on, nothing half-written stays."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.files import Work
from autoseg.preprocessing.store import stored_cases


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("patient;finding")


def _packed_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"patient;finding"))


def _header(path: Path, **fields: object) -> None:
    header = nibabel.load(path).header.copy()
    data = bytearray(gzip.decompress(path.read_bytes()))
    header["vox_offset"] = 352  # nibabel leaves it to the writer
    for name, value in fields.items():
        header[name] = value
    data[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(data)))


def _zero_spacing(path: Path) -> None:
    pixdim = nibabel.load(path).header["pixdim"].copy()
    pixdim[3] = 0
    _header(path, pixdim=pixdim, sform_code=0)


def _negative_spacing(path: Path) -> None:
    pixdim = nibabel.load(path).header["pixdim"].copy()
    pixdim[1] = -2
    _header(path, pixdim=pixdim, sform_code=0)


def _voxels(path: Path, change) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj, np.float32)), image.affine), path)


def _nan(path: Path) -> None:
    def change(voxels):
        voxels[3, 3, 3] = np.nan
        return voxels

    _voxels(path, change)


def _infinite(path: Path) -> None:
    def change(voxels):
        voxels[3, 3, 3] = np.inf
        return voxels

    _voxels(path, change)


def _constant(path: Path) -> None:
    _voxels(path, lambda voxels: np.full_like(voxels, 7))


def _two_channels(path: Path) -> None:
    _voxels(path, lambda voxels: np.stack([voxels, voxels], axis=3))


def _missing(path: Path) -> None:
    path.unlink()


def _forbidden(path: Path) -> None:
    """The fixture lets opening it fail, since tests may run as root, who may read everything."""


BAD = [
    (_truncated, "UnreadableFileError"),
    (_empty, "UnreadableFileError"),
    (_text, "UnreadableFileError"),
    (_packed_text, "UnreadableFileError"),
    (_zero_spacing, "GridError"),
    (_negative_spacing, "GridError"),
    (_nan, "IntensityError"),
    (_infinite, "IntensityError"),
    (_constant, "IntensityError"),
    (_two_channels, "ChannelError"),
    (_forbidden, "UnreadableFileError"),
    (_missing, "DatasetError"),
]


@pytest.fixture
def mixed(make_dataset, monkeypatch) -> tuple[Path, dict[str, str], list[str]]:
    """A dataset of good and bad cases: bad ones with their errors, and the good ones."""
    dataset = make_dataset(cases=len(BAD) + 5)
    images = [dataset / "imagesTr" / f"case_{number:02d}_0000.nii.gz" for number in range(len(BAD))]
    real, expected = Path.open, {}

    def opened(path, *arguments, **more):
        if path in images and BAD[images.index(path)][0] is _forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", opened)
    for number, (spoil, kind) in enumerate(BAD):
        spoil(images[number])
        expected[f"case_{number:02d}"] = kind
    return dataset, expected, [f"case_{n:02d}" for n in range(len(BAD), len(BAD) + 5)]


def test_each_bad_file_is_named_and_the_others_are_prepared(mixed, tiny, tmp_path, capsys):
    dataset, expected, good = mixed
    work = Work(tmp_path / "work")
    settings = [part for key, value in tiny.items() for part in ("--set", f"{key}={str(value).replace(' ', '')}")]
    assert main(["plan-and-preprocess", str(dataset), str(work.path), "--workers", "0", "--quiet", *settings]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    found = {line.split()[1].strip(",:"): line for line in lines}
    assert set(found) == set(expected)
    for name, kind in expected.items():
        assert f"{kind}:" in found[name], found[name]
    assert stored_cases(work.store("3d_fullres")) == good
    assert not [path for path in work.path.rglob(".*") if path.name != ".lock"]
    assert not [path for path in work.path.rglob("*") if path.name.split(".")[0] in expected]


def test_prediction_goes_on_past_bad_files(mixed, tiny, tmp_path, capsys):
    dataset, expected, good = mixed
    work, out = tmp_path / "work", tmp_path / "out"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    assert not pipeline.train(work, folds=[0], workers=0, quiet=True).problems
    capsys.readouterr()
    assert main(["predict", str(work), str(dataset / "imagesTr"), str(out), "--fold", "0", "--quiet"]) == 1
    said = capsys.readouterr().out
    names = set(expected) - {"case_11"}  # the one whose image is missing is nothing to predict
    for name in names:
        assert any(name in line and f"{expected[name]}:" in line for line in said.splitlines()), name
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in good]
    assert not list(out.glob(".*"))
