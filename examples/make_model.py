"""Write models/fields.onnx, a network of one convolution that knows sky and grass by their colours.

In your repository, your training does this. Needs ``pip install onnx``.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILE = Path(__file__).parent / "models" / "fields.onnx"
WEIGHTS = np.array([[0, 0, 0], [-1, -0.5, 2], [-1, 2, -1]], dtype=np.float32)  # of red, green and blue
BIAS = np.array([0.2, 0, 0], dtype=np.float32)  # ground is what is neither

photo = helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["n", 3, "h", "w"])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])
weights = [numpy_helper.from_array(WEIGHTS[:, :, None, None], "weights"), numpy_helper.from_array(BIAS, "bias")]
node = helper.make_node("Conv", ["photo", "weights", "bias"], ["logits"])
graph = helper.make_graph([node], "fields", [photo], [logits], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, FILE)
print(FILE)
