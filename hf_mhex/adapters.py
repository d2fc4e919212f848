"""LoRA for MHEX models: adapters on the backbone; gates, heads and norms with statistics trained and saved in full."""

from __future__ import annotations


def lora_config(model, **options):
    """A `peft.LoraConfig` under which gates and heads learn and are saved beside the adapters.

    A converted model's gates start at W1 = 0 and its heads at random, so a LoRA that freezes them teaches nothing.
    Batch norms, whose statistics training moves, are saved too.

    Args:
        model: an MHEX classifier.
        options: of `peft.LoraConfig` (r, lora_alpha, target_modules, ...); `modules_to_save` is added to ours.

    Raises RuntimeError where peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise RuntimeError("peft is missing; pip install 'hf-mhex[train]'.") from error
    gates = {id(gate) for gate in model.base_model.gates}
    names = [name for name, module in model.named_modules() if id(module) in gates]
    names += [f"heads.{block}" for block in range(model.num_blocks)]
    names += [name for name, module in model.named_modules() if getattr(module, "running_mean", None) is not None]
    options["modules_to_save"] = [*names, *(options.get("modules_to_save") or ())]
    if options.get("target_modules") is None:
        attention = ("query", "key", "value", "q_lin", "k_lin", "v_lin", "query_proj", "key_proj", "value_proj", "Wqkv")
        found = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()} & {*attention, "qkv"}
        if found:  # elsewhere peft says that target_modules must be given
            options["target_modules"] = sorted(found)
    return LoraConfig(**options)
