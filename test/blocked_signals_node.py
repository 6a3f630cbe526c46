"""The node in a process whose main thread blocks SIGINT, so that another thread takes it."""

from __future__ import annotations

import signal
import sys
import threading

from quick_network_node import main

if __name__ == '__main__':
    # Threads that start later inherit the mask, so this one alone takes the signal.
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.exit(main())
