"""What a sweep leaves in its folder: entries, pictures, and the board in every form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import write_atomically
from ..console import print_table
