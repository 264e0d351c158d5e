"""A `gpg` that is there on every machine: as much of GnuPG's command line as the documentation and `git commit -S` use, over Sequoia.

    python gpg.py [--batch] [--quiet] [--passphrase ""] --quick-generate-key "NAME <EMAIL>"
    python gpg.py --armor --export EMAIL
    python gpg.py --status-fd=2 -bsau EMAIL < DATA

Keys lie in GNUPGHOME, one file each. It keeps no secret from anybody.
"""

import os
import sys
from pathlib import Path

from pysequoia import SignatureMode, Tsk, sign


def main(arguments: list[str]) -> int:
    home, last = Path(os.environ["GNUPGHOME"]), arguments[-1]
    home.mkdir(exist_ok=True)
    if "--quick-generate-key" in arguments:
        email = last.rpartition("<")[2].removesuffix(">")
        (home / email).write_text(str(Tsk.generate(last)))
        return 0
    if not (home / last).is_file():
        sys.stderr.write(f"gpg: no key {last}\n")
        return 2
    key = Tsk.from_file(str(home / last))
    if "--export" in arguments:
        sys.stdout.write(str(key.extract_certificate()))
        return 0
    if "-bsau" in arguments:
        sys.stdout.write(sign(key.signer(), sys.stdin.buffer.read(), mode=SignatureMode.DETACHED).decode())
        sys.stderr.write("\n[GNUPG:] SIG_CREATED D\n")
        return 0
    sys.stderr.write(f"gpg: not played here: {' '.join(arguments)}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
