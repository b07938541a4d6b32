"""onnxruntime: encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from .engine import Ids, Job

VERSION = onnxruntime.__version__


class Encoder:
    """An ONNX file."""

    def __init__(self, job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        self._session = onnxruntime.InferenceSession(job.path, options, ["CPUExecutionProvider"])

    def encode(self, inputs: Ids) -> Any:
        return self._session.run(None, {"input_ids": np.array(inputs, np.int64)})[0]
