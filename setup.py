"""The distribution autoseg3d: package autoseg with its recipes as autoseg.plans, command autoseg."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "autoseg" / "__init__.py").read_text(encoding="utf-8")).group(1)

setup(
    name="autoseg3d",
    version=VERSION,
    description="From a folder of medical images with label maps to a trained, explained, cross-validated segmentation model",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["autoseg", "autoseg.*"]), "autoseg.plans"],
    # the recipes lie beside the code, so that they are found by who looks for them, and install as a package
    package_dir={"autoseg": "autoseg", "autoseg.plans": "plans"},
    package_data={"autoseg.plans": ["*.json"]},
    install_requires=[
        "torch>=2.4",
        "SimpleITK>=2.3",
        "nibabel>=5.2",
        "pillow>=10",
        "tifffile>=2023.7",
        "batchgenerators>=0.25",
        "scikit-learn>=1.4",
        "numpy>=1.26",
        "numba>=0.60",
        "scipy>=1.12",
        "tqdm>=4.60",
        "pydantic>=2.6",
        "blosc2>=2.5",
        "safetensors>=0.4",
        "matplotlib>=3.8",
        "psutil>=5.9",
        "connected-components-3d>=3.12",
        "filelock>=3.12",
        "threadpoolctl>=3.1",
    ],
    extras_require={
        "dicom": ["pydicom>=3.0", "pyjpegls>=1.2"],
        "cluster": ["distributed>=2024.5"],
        "track": ["tensorboard>=2.15"],
        "test": [
            "pydicom>=3.0",
            "pyjpegls>=1.2",
            "highdicom>=0.26",
            "slicerio>=1.4",
            "distributed>=2024.5",
            "tensorboard>=2.15",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "scikit-image>=0.24",
            "ruff>=0.6",
            "import-linter>=2",
            "build>=1.2",
        ],
    },
    entry_points={"console_scripts": ["autoseg = autoseg.cli.main:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
