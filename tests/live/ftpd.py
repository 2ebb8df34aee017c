# SPDX-License-Identifier: BSD-2-Clause
"""An FTP server over one folder, anonymous and writable: ftpd.py FOLDER. Data connections come from port 20 (RFC 959)."""

import logging
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # it builds on asyncore

from pyftpdlib.authorizers import DummyAuthorizer  # noqa: E402
from pyftpdlib.handlers import ActiveDTP, FTPHandler  # noqa: E402
from pyftpdlib.servers import FTPServer  # noqa: E402


class FromPort20(ActiveDTP):
    def bind(self, address):
        self.set_reuse_addr()
        super().bind(address)

    def connect_af_unspecified(self, addr, source_address=None):
        return super().connect_af_unspecified(addr, (source_address[0], 20))


logging.basicConfig(level=logging.WARNING)
authorizer = DummyAuthorizer()
authorizer.add_anonymous(sys.argv[1], perm="elrw")
FTPHandler.authorizer, FTPHandler.active_dtp = authorizer, FromPort20
FTPHandler.permit_foreign_addresses = False
FTPServer(("", 21), FTPHandler).serve_forever()
