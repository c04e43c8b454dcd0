"""Where the wheel `openvino` has its C library, whose name ends in a version."""
import importlib.util
import pathlib

package = pathlib.Path(importlib.util.find_spec("openvino").origin).parent
(library,) = [path for path in (package / "libs").iterdir() if path.name.startswith("libopenvino_c.")]
print(library, end="")
