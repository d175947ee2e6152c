"""What a run file says of the machine, of its measured speed and of the commit."""

from __future__ import annotations

from segcore.core.record_fields import Count, Device, Positive, PositiveCount, Precision, Record, Text


class GpuRecord(Record):
    """One accelerator: its name, driver and memory in bytes."""

    name: Text
    driver: Text
    memory_bytes: Count | None = None


class MachineRecord(Record):
    """What determines the speed of a machine; the speeds of two runs are comparable only if all fields are equal."""

    cpu: Text
    cores_physical: PositiveCount | None
    cores_usable: PositiveCount
    """Logical processors that this process may run on (affinity)."""
    cgroup_cpus: Positive | None
    """CPU quota of the control group in processors, None if unlimited."""
    instruction_sets: tuple[Text, ...]
    memory_bytes: Count
    system: Text
    """Operating system and architecture, without patch levels."""
    gpus: tuple[GpuRecord, ...] = ()
    python: Text
    torch: Text
    torch_build: Text
    """BLAS, oneDNN, OpenMP and CPU capability of torch's build."""
    intra_op_threads: PositiveCount
    inter_op_threads: PositiveCount
    thread_settings: dict[Text, Text] = {}
    """Environment variables that set thread counts, if they are set."""


class CalibrationRecord(Record):
    """Peak rates of a device, measured in the same session (medians of repeated rounds)."""

    device: Device
    precision: Precision = "fp32"
    matmul_gmacs_per_s: Positive
    conv_gmacs_per_s: Positive | None
    """None where torch has no such convolution."""
    copy_gbytes_per_s: Positive
    tf32: bool | None = None
    """Whether fp32 products were rounded to TF32; None where there is no TF32."""

    @property
    def peak_gmacs_per_s(self) -> float:
        """Return the rate of the faster of the two products."""
        return max(self.matmul_gmacs_per_s, self.conv_gmacs_per_s or 0.0)


class GitRecord(Record):
    """Commit that was measured."""

    commit: Text
    branch: Text | None
    dirty: bool
