"""Build the collector's Lambda package: the modules it imports, and nothing else. The same files make the same bytes.

    python scripts/collector_zip.py dist/collector.zip

boto3 comes with the Lambda runtime. Entries are stored, not compressed: compressors of different versions differ.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANDLER_MODULE = "workers.collector"
LISTING = (
    f"import sys, {HANDLER_MODULE}; "
    "print('\\n'.join(sorted(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('app', 'workers'))))"
)


def files() -> list[Path]:
    """The project's files that the handler imports, relative to its root."""
    shown = subprocess.run([sys.executable, "-c", LISTING], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return sorted(Path(line).resolve().relative_to(ROOT) for line in shown.stdout.split())


def build(out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as package:
        for path in files():
            entry = zipfile.ZipInfo(path.as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            package.writestr(entry, (ROOT / path).read_bytes())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    build(target)
    sys.stdout.write(f"{target}: {len(files())} files, {target.stat().st_size / 1024:.0f} KiB\n")
