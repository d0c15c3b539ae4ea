"""As Postfix's spawn(8): a process of the program named for each connection, on its standard input and output.

usage: spawn.py PORT PROGRAM [ARGUMENT...]
"""

import os
import signal
import socket
import sys


def reap(_signal, _frame):
    # Waited for, so that their CPU time counts as this process's.
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        pass


signal.signal(signal.SIGCHLD, reap)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    if os.fork() == 0:
        server.close()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        os.execv(sys.argv[2], sys.argv[2:])
    connection.close()
