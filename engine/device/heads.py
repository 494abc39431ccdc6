"""stub"""

from typing import Any

DeviceHeads: Any = None
HeadGroup: Any = None
