"""vLLM's OpenAI server, started as a module of ours so that none of its processes can outlive it.

Processes that Python's multiprocessing spawns import the main module again, before anything else: here they
are tied to the process that started them. A plugin would come too late: an engine core waits for minutes for
its front end before it loads plugins.
"""

from stepaudio_runtime.health.tether import follow_parent
from stepaudio_runtime.service.objects import look_seldom

follow_parent()
look_seldom()

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
