"""What a user of fastai types for a first submission on FER2013; `fastai_first_submission` measures it.

python benchmarks/fastai_user.py FOLDER_OF_DATA FOLDER_FOR_RESULTS EPOCHS [bf16]
"""
# ruff: noqa: F403, F405

import sys

from fastai.vision.all import *

data, out, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
train, test = pd.read_csv(data / "train.csv"), pd.read_csv(data / "test.csv")
for table in (train, test):
    table["face"] = [np.array(pixels.split(), np.uint8).reshape(48, 48) for pixels in table.pixels]
train["is_valid"] = train.Usage == "PublicTest"

set_seed(0)
transforms = [*aug_transforms(max_warp=0, max_lighting=0), Normalize()]
blocks, columns = (ImageBlock(PILImageBW), CategoryBlock), [ColReader("face"), ColReader("emotion")]
block = DataBlock(blocks, getters=columns, splitter=ColSplitter(), batch_tfms=transforms)
dls = block.dataloaders(train, bs=128)
model = xresnet18(n_out=7, c_in=1, widen=0.5)
if "bf16" in sys.argv:  # in torch, by hand: fastai's to_bf16() changes nothing on a CPU
    forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    model.forward = lambda faces: forward(faces).float()
learn = Learner(dls, model, metrics=accuracy, cbs=SaveModelCallback("accuracy"), path=out)
learn.to_channelslast(use_amp=False).fit_one_cycle(epochs, 1e-2)

print(f"valid accuracy {accuracy(*learn.tta()).item():.6f}")
probs, _ = learn.tta(dl=dls.test_dl(test))
pd.DataFrame({"id": test.id, "emotion": probs.argmax(1)}).to_csv(out / "submission.csv", index=False)
