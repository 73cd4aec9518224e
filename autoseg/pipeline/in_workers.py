"""What processes that measure and prepare cases import before they are split off, see `autoseg.parallel.import_ahead`."""

import blosc2  # noqa: F401  the stores' library

from autoseg.data import reading, writing  # noqa: F401
from autoseg.data.formats.nifti import lean_nibabel
from autoseg.fingerprint import measure  # noqa: F401
from autoseg.preprocessing import preprocess  # noqa: F401

lean_nibabel()
