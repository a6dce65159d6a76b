from dataclasses import dataclass
import numpy as np
from PIL import Image
@dataclass(frozen=True)
class Transform:
    side_px: int = 260
    via_px: int = 224
    mean: float = 127.0
    scale: float = 128.0
    def squash(self, image):
        return image if image.size == (self.via_px,)*2 else image.resize((self.via_px,)*2, Image.Resampling.BICUBIC)
    def normalise(self, image):
        image = image.resize((self.side_px,)*2, Image.Resampling.BICUBIC)
        a = np.asarray(image, dtype=np.float32)
        return np.ascontiguousarray(((a - self.mean)/self.scale).transpose(2,0,1))
def load_image(p):
    return Image.open(p).convert("RGB")
