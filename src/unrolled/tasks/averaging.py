"""The mean of the weights of several evaluations as a run of its own (checkpoint averaging; Vaswani et al. 2017, section 6.1)."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from unrolled.core.errors import ConfigurationError, RunError
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.train.checkpoint import read_checkpoint, write_checkpoint


def average_run(path: Path | str, out: Path | str, *, last: int | None = None) -> Path:
    """Make a run whose weights are the mean of those that a training kept (`train.keep`).

    Args:
        path: the run.
        out: where the new one shall stand; it can be scored, decoded with and looked at, but not trained on.
        last: of the last so many evaluations; all that were kept when `None`.

    Returns:
        The new run folder.

    Raises:
        ConfigurationError: nothing to average.
        RunError: fewer were kept than asked for.
    """
    folder = RunFolder(Path(path))
    facts = folder.facts()
    kept = sorted(folder.kept.glob("*.safetensors"))
    if last is not None and last < 1:
        raise ConfigurationError(f"`--last` must be at least 1, got {last}")
    if len(kept) < (last or 1):
        raise RunError(
            f"the run `{path}` keeps the weights of {len(kept)} evaluations, {last or 1} are asked for; train with `train.keep={last or 5}`"
        )
    chosen = kept if last is None else kept[-last:]
    with new_run(Path(out)) as new:
        for file in (folder.config, folder.tokenizer, *folder.side_tokenizers):
            if file.exists():
                shutil.copyfile(file, new.path / file.name)
        write_checkpoint(new.weights, mean_of(chosen), {"averaged": [int(one.stem) for one in chosen]})
        data = dict(facts["data"])
        for key in ("files", "valid_files"):
            data[key] = [new.relative(folder.resolve(one)) for one in data.get(key, [])]
        name = Path(out).resolve().name
        note = f"mean of the weights at steps {', '.join(str(int(one.stem)) for one in chosen)} of `{folder.name}`"
        # What the training reached is not what the mean reaches.
        kept_facts = {key: value for key, value in facts.items() if key != "result"}
        new.write_facts({**kept_facts, "name": name, "data": data, "status": "finished", "note": note, "averaged": len(chosen)})
    return Path(out)


def mean_of(files: list[Path]) -> dict[str, Tensor]:
    """The mean of the tensors of several files, added up in double precision.

    Args:
        files: weights of one model at several times, at least one.

    Returns:
        Tensors by name, in their own type.

    Raises:
        RunError: a file is damaged, or holds other tensors than the first.
    """
    first, _ = read_checkpoint(files[0])
    total = {name: tensor.double() for name, tensor in first.items()}
    for file in files[1:]:
        tensors, _ = read_checkpoint(file)
        if tensors.keys() != total.keys() or any(tensors[name].shape != total[name].shape for name in total):
            raise RunError(f"`{file}` must hold the same tensors as `{files[0]}`, and it does not; remove it or train again")
        for name, tensor in tensors.items():
            total[name] += tensor.double()
    return {name: (tensor / len(files)).to(first[name].dtype) for name, tensor in total.items()}
