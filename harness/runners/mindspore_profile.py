"""MindSpore's own profiler. Its output is what its tools read: on Ascend MindStudio Insight, on a CPU tables."""

from pathlib import Path

import mindspore as ms


class MindSporeProfiler:
    """See `harness.runners.profiling.Profiler`."""

    def __init__(self, directory: Path, device: str) -> None:
        self._directory, self._device = directory, device

    def start(self) -> None:
        """Makes the profiler, which begins at once."""
        kinds = [ms.profiler.ProfilerActivity.CPU]
        if self._device == "Ascend":
            kinds.append(ms.profiler.ProfilerActivity.NPU)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._profiler = ms.profiler.profile(
            activities=kinds,
            start_profile=False,
            on_trace_ready=ms.profiler.tensorboard_trace_handler(str(self._directory)),
        )
        self._profiler.start()

    def stop(self) -> None:
        """Writes and analyses what was recorded."""
        self._profiler.stop()
