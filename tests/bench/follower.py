"""Un processus qui suit la base, et dit l'instant où chaque révision y est en vigueur."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from fastapi_acl import ACLConfig, ACLManager


async def main() -> None:
    manager = ACLManager(ACLConfig(_env_file=None, **json.loads(sys.argv[1])))
    await manager.initialize()
    replica, watcher = manager._parts.replica, manager._parts.watcher
    while watcher is not None and watcher.status != "connected":
        await asyncio.sleep(0.01)
    try:
        while True:
            print(replica.revision, time.monotonic(), flush=True)
            await replica.wait_for_move()
    finally:
        await manager.close()


if __name__ == "__main__":
    asyncio.run(main())
