"""A collector in Python, against wit/ alone: the load of the machine, and a greed that can be set.

Build it from the root of the repository:

    pip install componentize-py==0.25.1
    componentize-py -d wit -w collector-plugin componentize -p tests/components/python app -o python.wasm
    kimberlite embed tests/components/python/plugin.toml python.wasm
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.collector import Batch, CollectError_Failed, Series, Tick
from wit_world.imports import host_stats, log
from wit_world.imports.kimberlite_plugin_types import Kind, Publish, Setting, Strings

NAMES = ["python.runs", "python.load"]


class Memory:
    """What outlives a call: every call gets a Collector of its own."""

    runs = 0
    hoard = []
    greed = 0


class Collector(exports.Collector):
    def init(self, settings: list[Setting]) -> None:
        for setting in settings:
            if setting.key == "hoard":
                Memory.greed = setting.value.value
        log.log(log.Severity.INFO, f"hoards {Memory.greed} MiB at each run")

    def collect(self, tick: Tick) -> Batch:
        Memory.hoard.append(bytearray(Memory.greed << 20))
        Memory.runs += 1
        try:
            table = host_stats.load().now
        except Err as error:
            raise Err(CollectError_Failed(str(error.value)))
        load = table.values[texts(table.columns).index("01")]
        return Batch(
            elements=[],
            machine=None,
            series=[series(handle, name) for handle, name in enumerate(NAMES)] if Memory.runs == 1 else [],
            handles=[0, 1],
            values=[float(Memory.runs), load],
            timestamps=[],
            summaries=[],
            samples=[],
            forget=[],
            forget_elements=[],
            events=[],
            checks=[],
        )


def series(handle: int, name: str) -> Series:
    return Series(handle, None, name, "", Kind.GAUGE, Publish.TOTAL, 1.0, [], "")


def texts(packed: Strings) -> list[str]:
    bytes = packed.text.encode()
    starts = [0, *packed.ends]
    return [bytes[start:end].decode() for start, end in zip(starts, packed.ends)]
