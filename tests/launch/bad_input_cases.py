"""The cases of bad_input.py: what is given, and what must be said about it."""

import dataclasses
import glob
import json
import os
import shutil

USAGE, BAD_DATA, IO, CONFIG = 64, 65, 74, 78  # ExitCode of runtime/status.h


@dataclasses.dataclass
class Case:
    name: str
    arguments: list
    code: int
    names: list  # regular expressions that the error line must match
    ranks: tuple = (1, 2)


def train_arguments(source, run_dir, more=(), data="good"):
    """A command that trains the debug model for a few steps."""
    return ["pretrain", "--config", os.path.join(source, "configs/debug.textproto"), "--run_dir", run_dir,
            "--set", f"data.train={data}", "--set", "train.steps=4", "--set", "optimizer.warmup_steps=1", *more]


def flip_byte(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def truncate(path, missing_bytes):
    os.truncate(path, os.path.getsize(path) - missing_bytes)


def command_line_cases():
    good = ["pretrain", "--config", "c", "--run_dir", "never_made"]
    return [
        Case("no command", [], USAGE, ["no command", "--help"]),
        Case("unknown command", ["pretrian"], USAGE, ["'pretrian'", "'pretrain'"]),
        Case("no command of several", ["checkpoint"], USAGE, ["no command", "checkpoint --help"], (1,)),
        Case("unknown command of several", ["checkpoint", "verfy"], USAGE, ["'verfy'", "'verify'", "checkpoint --help"], (1,)),
        Case("a command's missing option", ["checkpoint", "verify"], USAGE, ["hypermoe checkpoint verify: path", "verify --help"],
             (1,)),
        Case("unknown option", good + ["--batch_size", "4"], USAGE, ["--batch_size", "pretrain --help"]),
        Case("missing option", ["pretrain", "--config", "c"], USAGE, ["--run_dir"]),
        Case("bad choice", good + ["--resume=maybe"], USAGE, ["--resume", "maybe", "auto", "never"]),
        Case("bad number", good + ["--stop_at_step", "soon"], USAGE, ["--stop_at_step", "soon"]),
        Case("no time to run", good + ["--max_minutes", "0"], USAGE, ["--max_minutes", "0", "0.001"]),
        Case("profiled steps that are no range", good + ["--profile_steps", "12"], USAGE,
             ["--profile_steps", "'12'", "FIRST:LAST"]),
        Case("profiled steps backwards", good + ["--profile_steps", "12:10"], USAGE, ["--profile_steps", "'12:10'"]),
        Case("temperature below 0", ["generate", "--checkpoint", "run", "--prompt", "a", "--temperature", "-1"], USAGE,
             ["--temperature", "-1", "0 to 100"]),
        Case("top_p not a number", ["generate", "--checkpoint", "run", "--prompt", "a", "--top_p", "nan"], USAGE,
             ["--top_p", "nan"]),
        Case("nothing to generate from", ["generate", "--checkpoint", "run"], USAGE, ["--prompt", "--input"]),
        Case("generate from two things", ["generate", "--checkpoint", "run", "--prompt", "a", "--input", "b", "--output", "c"],
             USAGE, ["--prompt", "--input"], (1,)),
        Case("beams of a prompt", ["generate", "--checkpoint", "run", "--prompt", "a", "--beams", "2"], USAGE,
             ["--beams", "--input"], (1,)),
        Case("no output", ["generate", "--checkpoint", "run", "--input", "a"], USAGE, ["--input", "--output"], (1,)),
        Case("sampling of a file", ["generate", "--checkpoint", "run", "--input", "a", "--output", "b", "--top_p", "0.5"], USAGE,
             ["--top_p", "--prompt"], (1,)),
        Case("shortest above longest", ["generate", "--checkpoint", "run", "--input", "a", "--output", "b", "--min_length", "9",
             "--max_length", "8"], USAGE, ["--min_length 9", "--max_length 8"]),
        Case("early stopping of one beam", ["generate", "--checkpoint", "run", "--input", "a", "--output", "b",
             "--early_stopping", "true"], USAGE, ["--early_stopping true", "--beams"], (1,)),
        Case("evaluate cannot change the model",
             ["evaluate", "--checkpoint", "run", "--set", "model.num_layers=3"], USAGE,
             [r"model\.num_layers=3", r"mesh\.expert_parallel"]),
    ]


def config_cases(folder, source):
    """Configurations that cannot be run."""
    debug = os.path.join(source, "configs/debug.textproto")
    switch = os.path.join(source, "configs/switch_tiny_moe.textproto")
    for name, text in {"unknown_field": "model { num_layrs: 2 }", "syntax": "model { num_layers 2 }"}.items():
        with open(os.path.join(folder, f"{name}.textproto"), "w") as file:
            file.write("# a comment\n" + text + "\n")

    def case(name, names, *changes, config=debug, code=CONFIG, **keywords):
        arguments = ["pretrain", "--config", config, "--run_dir", "never_made", "--set", "data.train=good"]
        for change in changes:
            arguments += ["--set", change]
        return Case(name, arguments, code, names, **keywords)

    return [
        case("unknown field in a file", [r"unknown_field\.textproto:2:", "num_layrs", "num_layers"],
             config="unknown_field.textproto"),
        case("syntax error in a file", [r"syntax\.textproto:2:\d+"], config="syntax.textproto"),
        case("missing config file", [r"no_such\.textproto"], config="no_such.textproto", code=IO),
        case("value out of range", [r"model\.num_layers", "0", "1"], "model.num_layers=0"),
        case("value of the wrong type", [r"train\.steps", "many"], "train.steps=many"),
        case("unknown --set path", [r"model\.num_expert\b", "num_experts"], "model.num_expert=4"),
        case("--set without a value", [r"model\.num_layers", "PATH=VALUE"], "model.num_layers"),
        case("width does not divide by heads", [r"model\.hidden_size \(33\)", r"model\.num_heads"],
             "model.hidden_size=33"),
        case("expert degree does not divide the ranks", [r"mesh\.expert_parallel \(3\)", r"ranks \(2\)", "1, 2"],
             "mesh.expert_parallel=3", ranks=(2,)),
        case("a device that is not there", [r"mesh\.device", "cuda", "cpu"], "mesh.device=cuda"),
        case("vocabulary below the tokenizer's", [r"model\.vocab_size \(50\)", "257"], "model.vocab_size=50"),
        case("more micro-batches than rows", [r"train\.micro_batches", r"train\.batch_size"],
             "train.batch_size=2", "train.micro_batches=4"),
        case("no training data named", [r"data\.train"], "data.train="),
        case("a weight that is no number", [r"data\.train", "good:much", "PREFIX:WEIGHT"], "data.train=good:much"),
        case("a weight of 0", [r"data\.train\.weight", "0", "above 0"], "data.train=good:0"),
        case("a file named twice", [r"data\.train", "good", "twice"], "data.train=good,good:2"),
        case("capacity without experts", [r"model\.training_capacity", "fixed_per_row", "dense"], "model.kind=dense",
             "model.training_capacity.mode=fixed_per_row"),
        case("a capacity that no mode uses", [r"training_capacity\.tokens_per_row", "mode is none", "fixed_per_row"],
             "model.training_capacity.tokens_per_row=4"),
        case("capacity factor of 0", [r"model\.evaluation_capacity\.factor", "0", "above 0"],
             "model.evaluation_capacity.factor=0"),
        case("unknown recomputation", [r"train\.recompute", "layers", "nothing, blocks"], "train.recompute=layers"),
        case("unknown dtype", [r"runtime\.dtype", "float16", "bfloat16"], "runtime.dtype=float16"),
        case("ZeRO stage instead of a switch", [r"optimizer\.zero1", "3", "true"], "optimizer.zero1=3"),
        case("bucket of nothing", [r"mesh\.bucket_mebibytes", "0", "1"], "mesh.bucket_mebibytes=0"),
        case("negative peak", [r"runtime\.peak_teraflops", "-1", "0"], "runtime.peak_teraflops=-1"),
        case("steps and tokens", [r"train\.steps \(200\)", r"train\.tokens \(9\)"], "train.tokens=9"),
        case("gaps for a model of next tokens", [r"data\.noise_density", r"model\.family is gpt2"], "data.noise_density=0.3"),
        case("no gaps", [r"data\.noise_density", "0", r"0\.001"], "data.noise_density=0", config=switch, ranks=(1,)),
        case("more gaps than sentinels", [r"model\.sequence_length \(2048\)", "114 gaps", "100 sentinels"],
             "model.sequence_length=2048", config=switch),
        case("no ids for sentinels", [r"model\.vocab_size \(257\)", "357"], "model.vocab_size=257", "model.pad_id=0",
             "model.decoder_start_id=0", config=switch, ranks=(1,)),
        case("another end than the tokenizer's", [r"model\.end_id is 1", "256"], "model.end_id=1", config=switch, ranks=(1,)),
    ]


def data_cases(folder, source):
    """Token files and text."""
    for name in ("short_bin", "bad_magic", "short_idx", "big_id"):
        for suffix in (".bin", ".idx"):
            shutil.copy(os.path.join(folder, "good" + suffix), os.path.join(folder, name + suffix))
    truncate(os.path.join(folder, "short_bin.bin"), 10)
    truncate(os.path.join(folder, "short_idx.idx"), 8)
    flip_byte(os.path.join(folder, "bad_magic.idx"), 3)
    with open(os.path.join(folder, "big_id.bin"), "r+b") as file:
        file.write((300).to_bytes(2, "little"))
    with open(os.path.join(folder, "bad_utf8.txt"), "wb") as file:
        file.write(b"first line\nsecond \xff line\n")
    with open(os.path.join(folder, "bad.jsonl"), "w") as file:
        file.write('{"text": "good"}\n{"text": "no end}\n')

    os.mkdir(os.path.join(folder, "bad_merges"))
    with open(os.path.join(folder, "bad_merges", "vocab.json"), "w") as file:
        file.write('{"a": 0}')
    with open(os.path.join(folder, "bad_merges", "merges.txt"), "w") as file:
        file.write("#version: 0.2\na b c\n")

    def train(name, code, names, data, *changes):
        more = [word for change in changes for word in ("--set", change)]
        return Case(name, train_arguments(source, "never_made", more, data), code, names)

    def prepare(name, code, names, *arguments, tokenizer="byte", ranks=(1,)):
        return Case(name, ["prepare", "--tokenizer", tokenizer, *arguments], code, names, ranks)

    return [
        train("token file that does not exist", IO, [r"no_such\.(idx|bin)"], "no_such"),
        train("truncated .bin", BAD_DATA, [r"short_bin\.bin|short_bin\.idx"], "short_bin"),
        train("truncated .idx", BAD_DATA, [r"short_idx\.idx"], "short_idx"),
        train("wrong magic", BAD_DATA, [r"bad_magic\.idx", "magic"], "bad_magic"),
        train("token id above the vocabulary", BAD_DATA, [r"big_id", "300", "256", r"model\.vocab_size"], "big_id"),
        train("weight decay of no parameter", CONFIG, [r"optimizer\.no_decay", r"'wte\.wieght'", r"'wte\.weight'"],
              "good", "optimizer.no_decay=wte.wieght"),
        train("text shorter than a row", BAD_DATA, ["data.train", "60000"],
              "good", "model.sequence_length=60000"),
        prepare("invalid UTF-8", BAD_DATA, [r"bad_utf8\.txt:2:8"], "--input", "bad_utf8.txt", "--output", "out"),
        prepare("broken JSON", BAD_DATA, [r"bad\.jsonl:2"], "--input", "bad.jsonl", "--output", "out"),
        prepare("input that does not exist", IO, [r"no_such\.txt"], "--input", "no_such.txt", "--output", "out"),
        prepare("unknown tokenizer", USAGE, ["bpe", "byte"],
                "--input", "good.txt", "--output", "out", tokenizer="bpe"),
        prepare("tokenizer without its folder", USAGE, ["gpt2", "gpt2:DIR"],
                "--input", "good.txt", "--output", "out", tokenizer="gpt2"),
        prepare("tokenizer folder that does not exist", IO, [r"no_such_folder/vocab\.json"],
                "--input", "good.txt", "--output", "out", tokenizer="gpt2:no_such_folder"),
        prepare("malformed tokenizer", BAD_DATA, [r"bad_merges/(vocab\.json|merges\.txt)"],
                "--input", "good.txt", "--output", "out", tokenizer="gpt2:bad_merges"),
        prepare("prepare on several ranks", USAGE, ["prepare", "one rank", "2"],
                "--input", "good.txt", "--output", "out", ranks=(2,)),
        prepare("output below a file", IO, [r"good\.txt"], "--input", "good.txt", "--output", "good.txt/out"),
    ]


def run_folder_cases(folder, source):
    """Run folders and checkpoints."""
    for name in ("flipped_weights", "flipped_manifest", "no_checkpoint", "missing_shard", "extra_file", "bad_record"):
        shutil.copytree(os.path.join(folder, "run"), os.path.join(folder, name))

    def checkpoint_file(run, pattern):
        return sorted(glob.glob(os.path.join(folder, run, "checkpoints", "*", pattern)))[-1]

    weights = checkpoint_file("flipped_weights", "*.safetensors")
    flip_byte(weights, os.path.getsize(weights) - 100)
    manifest = checkpoint_file("flipped_manifest", "manifest.json")
    flip_byte(manifest, os.path.getsize(manifest) // 2)
    os.remove(checkpoint_file("missing_shard", "*.safetensors"))
    shutil.rmtree(os.path.join(folder, "no_checkpoint", "checkpoints"))
    with open(os.path.join(os.path.dirname(checkpoint_file("extra_file", "manifest.json")), "notes.txt"), "w") as file:
        file.write("not of this checkpoint")

    def train(name, code, names, run_dir, *more):
        return Case(name, train_arguments(source, run_dir, more), code, names)

    with open(os.path.join(folder, "bad_record", "metrics.jsonl"), "r+") as file:
        first = file.readline()
        file.seek(len(first))
        file.write('{"kind": "train", "step": 2}\n')
        file.truncate()
    step = os.path.relpath(os.path.dirname(checkpoint_file("run", "manifest.json")), folder)

    reshard = ["checkpoint", "reshard", "--checkpoint", "run"]

    def evaluate(name, code, names, checkpoint):
        return Case(name, ["evaluate", "--checkpoint", checkpoint, "--data", "good"], code, names)

    return [
        train("run folder below a file", IO, [r"good\.txt"], "good.txt/run"),
        train("--resume=never on an existing run", USAGE, ["run", "--resume"], "run", "--resume=never"),
        train("another configuration on resume", CONFIG, [r"train\.batch_size"], "run", "--set", "train.batch_size=6"),
        train("resume from a corrupt checkpoint", BAD_DATA,
              ["no checkpoint of flipped_weights is intact", r"flipped_weights.*safetensors", "bytes 0 to", "tensor '"], "flipped_weights"),
        evaluate("checkpoint that does not exist", IO, ["no_such_run"], "no_such_run"),
        evaluate("run folder without a checkpoint", BAD_DATA, ["no_checkpoint"], "no_checkpoint"),
        evaluate("flipped bit in the weights", BAD_DATA, [r"flipped_weights.*safetensors"], "flipped_weights"),
        evaluate("flipped bit in the manifest", BAD_DATA, [r"flipped_manifest.*manifest\.json"], "flipped_manifest"),
        evaluate("a file too many in a checkpoint", BAD_DATA, ["extra_file", "'notes.txt'", "does not list"], "extra_file"),
        evaluate("missing file of a checkpoint", BAD_DATA, [r"missing_shard.*safetensors"], "missing_shard"),
        Case("verify a damaged checkpoint", ["checkpoint", "verify", "flipped_weights"], BAD_DATA,
             ["1 of 1 checkpoints", "flipped_weights"]),
        Case("verify what is no run", ["checkpoint", "verify", "no_such_run"], IO, ["no_such_run"], (1,)),
        Case("list a run without checkpoints", ["checkpoint", "list", "no_checkpoint"], BAD_DATA, ["no_checkpoint"], (1,)),
        Case("reshard into a run", reshard + ["--ranks", "2", "--output", "run"], USAGE, ["--output run", "holds a run"]),
        Case("reshard to a degree that does not divide", reshard + ["--ranks", "3", "--expert_parallel", "2", "--output",
             "never_made"], USAGE, ["--expert_parallel 2", "--ranks 3"], (1,)),
        Case("a file for a model without an encoder", ["generate", "--checkpoint", "run", "--input", "good.txt", "--output",
             "never_made"], USAGE, ["run", "no encoder", "--prompt"]),
        Case("inspect what is no run", ["inspect", "no_such_run"], IO, ["no_such_run"]),
        Case("inspect nothing", ["inspect"], USAGE, ["hypermoe inspect: path", "inspect --help"], (1,)),
        Case("inspect a damaged checkpoint", ["inspect", "flipped_weights", "--data", "good"], BAD_DATA,
             [r"flipped_weights.*safetensors"]),
        Case("inspect a checkpoint into itself", ["inspect", step], USAGE, [step, "--output"]),
        Case("inspect into a checkpoint", ["inspect", "run", "--output", step + "/here"], USAGE,
             [r"--output .*here", "lies in the checkpoint"], (1,)),
        Case("inspect into a run", ["inspect", "run", "--output", "run"], USAGE, ["--output run", "not a report"]),
        Case("inspect with tokens that are not there", ["inspect", "run", "--data", "no_such"], IO, [r"no_such\.(idx|bin)"]),
        Case("inspect with another vocabulary", ["inspect", "run", "--data", "big_id"], BAD_DATA, ["big_id", "300"], (1,)),
        Case("inspect a record that is none", ["inspect", "bad_record"], BAD_DATA, [r"bad_record/metrics\.jsonl, line 2"], (1, 2)),
        Case("windows of nothing", ["inspect", "run", "--windows", "4"], USAGE, ["--windows", "--data"], (1,)),
        Case("inspect cannot change the model", ["inspect", "run", "--set", "model.num_layers=3"], USAGE,
             [r"model\.num_layers=3", r"mesh\.expert_parallel"], (1,)),
        Case("generate without a checkpoint", ["generate", "--checkpoint", "no_such_run", "--prompt", "a"], IO,
             ["no_such_run"]),
    ]


def model_folder_cases(folder, source):
    """Model folders of strangers. tests/runtime/model_folder_malformed_test.cc has many more."""
    for name in ("cut_model", "pickle_model", "lost_tensor", "escaping_model", "nan_model", "foreign_model"):
        shutil.copytree(os.path.join(folder, "model"), os.path.join(folder, name))

    def path(name, file):
        return os.path.join(folder, name, file)

    def replace(name, old, new):
        with open(path(name, "config.json")) as file:
            text = file.read()
        assert old in text, (name, old)
        with open(path(name, "config.json"), "w") as file:
            file.write(text.replace(old, new))

    truncate(path("cut_model", "model.safetensors"), 1)
    os.rename(path("pickle_model", "model.safetensors"), path("pickle_model", "pytorch_model.bin"))
    replace("lost_tensor", '"n_layer": 2', '"n_layer": 3')
    os.rename(path("escaping_model", "model.safetensors"), os.path.join(folder, "outside.safetensors"))
    with open(path("escaping_model", "model.safetensors.index.json"), "w") as file:
        json.dump({"weight_map": {"wte.weight": "../outside.safetensors"}}, file)
    replace("nan_model", '"resid_pdrop": 0.0', '"resid_pdrop": NaN')
    replace("foreign_model", '"hypermoe_gpt2"', '"llama"')

    # That ranks fail alike is the same for all of one command: one of them at 2 ranks is enough.
    def import_from(name, code, names, model, *more, ranks=(1,)):
        return Case(name, ["import", "--from", model, "--run_dir", "never_made", *more], code, names, ranks)

    def export(name, code, names, *arguments, ranks=(1,)):
        return Case(name, ["export", "--checkpoint", "model", *arguments], code, names, ranks)

    return [
        import_from("model folder that does not exist", IO, ["no_such_model", "no such folder"], "no_such_model"),
        import_from("model folder without a configuration", BAD_DATA, [r"config\.json"], "run"),
        import_from("truncated tensors", BAD_DATA, [r"cut_model/model\.safetensors", "cut off"], "cut_model",
                    ranks=(1, 2)),
        import_from("pickle", BAD_DATA, [r"pytorch_model\.bin", "pickle", "save_pretrained"], "pickle_model"),
        import_from("missing tensors", BAD_DATA, [r"'h\.2\.ln_1\.weight'", r"'h\.2\.ln_2\.weight'"], "lost_tensor"),
        import_from("an index that leads out of its folder", BAD_DATA, [r"\.\./outside", "plain name"],
                    "escaping_model"),
        import_from("NaN in a configuration", BAD_DATA, [r"nan_model/config\.json", "JSON"], "nan_model"),
        import_from("another family", CONFIG, ["llama", "not supported"], "foreign_model"),
        import_from("import with a change that does not fit", BAD_DATA, [r"'h\.2\."], "model",
                    "--set", "model.num_layers=3"),
        import_from("import with an unknown field", CONFIG, [r"model\.num_layrs", "num_layers"], "model",
                    "--set", "model.num_layrs=3"),
        Case("import into a run", ["import", "--from", "model", "--run_dir", "run"], USAGE, ["run", "already holds"],
             (1,)),
        Case("evaluate a bad model folder", ["evaluate", "--checkpoint", "cut_model", "--data", "good"], BAD_DATA,
             [r"cut_model/model\.safetensors"], (1,)),
        Case("evaluate a model folder without data", ["evaluate", "--checkpoint", "model"], USAGE, ["--data"], (1,)),
        export("export over a file", USAGE, [r"--output good\.txt"], "--output", "good.txt", ranks=(1, 2)),
        export("export into a folder that is not empty", USAGE, ["--output run"], "--output", "run"),
        export("a size that is none", USAGE, ["much", "5GB"], "--output", "never_made", "--max_shard", "much"),
        export("export cannot change the model", USAGE, [r"model\.num_layers"], "--output", "never_made",
               "--set", "model.num_layers=3"),
        Case("training on after an import", train_arguments(source, "imported"), USAGE, ["imported", "--init_from"]),
    ]


def growth_cases(source):
    """Larger models, and runs that start from a model."""
    dense = os.path.join(source, "tests/data/gpt2_dense")

    def grow(name, code, names, *more, origin="run", output="never_made", experts="8"):
        return Case(name, ["grow", "--from", origin, "--experts", experts, "--output", output, *more], code, names)

    def upcycle(name, code, names, *more, origin=dense):
        return Case(name, ["upcycle", "--from", origin, "--experts", "8", "--output", "never_made", *more], code, names)

    def train(name, code, names, *more):
        return Case(name, train_arguments(source, "never_made", more), code, names)

    return [
        grow("grow to no multiple", CONFIG, ["6 experts", "4, 8, 12"], experts="6"),
        grow("grow into a folder that exists", USAGE, ["--output run", "exists"], output="run"),
        grow("grow what does not exist", IO, ["no_such"], origin="no_such"),
        grow("grow a dense model", CONFIG, ["gpt2_dense", "dense", "upcycle"], origin=dense),
        grow("grow to a number of experts a token that no clones fit", CONFIG, [r"model\.top_k is 3", "--allow_change"],
             "--top_k", "3"),
        grow("grow with negative jitter", USAGE, ["--jitter", "-1", "0 to 100"], "--jitter", "-1"),
        grow("grow cannot change training", USAGE, [r"train\.steps=3"], "--set", "train.steps=3"),
        grow("grow a run in another dtype", USAGE, [r"runtime\.dtype", "float64", "float32"],
             "--set", "runtime.dtype=float64"),
        upcycle("upcycle to no kind", USAGE, ["--kind"]),
        upcycle("upcycle what is a HyperMoE already", CONFIG, [r"model\.kind is hyper", "moe"], "--kind", "moe",
                origin="run"),
        upcycle("upcycle to HyperExperts that are not zero", CONFIG, [r"hyper\.init", "zero_u"], "--kind", "hyper",
                "--set", "hyper.init=off_small"),
        train("start from what does not exist", IO, ["no_such"], "--init_from", "no_such"),
        train("start from another width", CONFIG, [r"model\.hidden_size is 32", "64"], "--init_from", "run",
              "--set", "model.hidden_size=64"),
        train("freeze no parameter", CONFIG, [r"train\.freeze", r"'wte\.wieght'", r"'wte\.weight'"],
              "--set", "train.freeze=wte.wieght"),
        train("freeze every parameter", CONFIG, [r"train\.freeze", "nothing to train"], "--set", "train.freeze=*"),
    ]


def finetune_cases(folder, source):
    """Tasks and their files. tests/runtime/task_malformed_test.cc and task_checks_test.cc have many more."""
    for data, label in [("data_sst2", "1"), ("data_bad", "good")]:
        os.mkdir(os.path.join(folder, data))
        for name, written in [("train", "0"), ("dev", label)]:
            with open(os.path.join(folder, data, name + ".tsv"), "w") as file:
                file.write(f"sentence\tlabel\na film\t{written}\n")

    def finetune(name, code, names, *more, task="sst2", data="data_sst2"):
        return Case(name, ["finetune", "--config", os.path.join(source, "configs/switch_tiny_moe.textproto"), "--task", task,
                           "--data", data, "--run_dir", "never_made", *more], code, names)

    def evaluate(name, code, names, *more):
        return Case(name, ["evaluate", "--checkpoint", "run", *more], code, names)

    return [
        Case("fine-tuning without a task", ["finetune", "--config", "c", "--run_dir", "never_made"], USAGE, ["--task"], (1,)),
        finetune("fine-tuning to an unknown task", CONFIG, [r"data\.task", "'ssst2'", "'sst2'"], task="ssst2"),
        finetune("files of a task that are not there", BAD_DATA, ["no_such", "SST-2", r"train\.tsv"], data="no_such"),
        finetune("a file of a task with a wrong label", BAD_DATA, [r"dev\.tsv:2", "'label'", "'good'"], data="data_bad"),
        finetune("a text for a model with an encoder", CONFIG, ["wikitext", "without an encoder"], task="wikitext"),
        finetune("token files beside a task", CONFIG, [r"data\.train is", r"data\.task is sst2"], "--set", "data.train=good"),
        finetune("steps and epochs", CONFIG, [r"train\.steps \(200\)", r"train\.epochs \(2\)"], "--set", "train.epochs=2"),
        finetune("patience without validations to compare", CONFIG, [r"train\.patience is 2", r"validation_windows is 32"],
                 "--set", "train.patience=2"),
        evaluate("evaluate a model without an encoder at a task", CONFIG, ["sst2", "with an encoder"], "--task", "sst2",
                 "--data", "data_sst2"),
        evaluate("decoding without a task", USAGE, [r"decoding\.beams=2"], "--set", "decoding.beams=2"),
        evaluate("a test without a task", USAGE, ["--split", "--task"], "--split", "test"),
    ]


def score_cases(folder):
    """Predictions and references. tests/runtime/score_test.cc has many more."""
    for name, text in {"sst2.tsv": "sentence\tlabel\ngood\t1\nbad\t0\n",
                       "words.jsonl": '{"prediction": "positive"}\n{"prediction": "negative"}\n',
                       "one.jsonl": '{"prediction": "positive"}\n',
                       "numbers.jsonl": '{"prediction": "positive"}\n{"prediction": 0}\n',
                       "wrong_label.tsv": "sentence\tlabel\ngood\t1\nbad\tawful\n"}.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)

    def score(name, code, names, *more, task="sst2", references="sst2.tsv", predictions="words.jsonl", ranks=(1,)):
        return Case(name, ["score", "--task", task, "--references", references, "--predictions", predictions, *more], code, names,
                    ranks)

    return [
        score("score on two ranks", USAGE, ["one rank", "without mpirun"], ranks=(2,)),
        score("score an unknown task", USAGE, ["'ssst2'", "'sst2'", "squad"], task="ssst2"),
        Case("score without references", ["score", "--task", "sst2", "--predictions", "words.jsonl"], USAGE, ["--references"], (1,)),
        Case("score without predictions", ["score", "--task", "sst2", "--references", "sst2.tsv"], USAGE, ["--predictions"], (1,)),
        score("score with unknown templates", USAGE, ["--templates", "t6", "off"], "--templates", "t6"),
        score("score with a stemmer that is none", USAGE, ["--stemmer", "porter", "true"], "--stemmer", "porter"),
        score("resamples without a comparison", USAGE, ["--resamples", "--compare"], "--resamples", "10"),
        score("no resample", USAGE, ["--resamples", "0"], "--compare", "words.jsonl", "--resamples", "0"),
        score("score predictions that do not exist", IO, ["no_such.jsonl"], predictions="no_such.jsonl"),
        score("too few predictions", BAD_DATA, [r"one\.jsonl has 1", "2 examples"], predictions="one.jsonl"),
        score("too few predictions to compare", BAD_DATA, [r"one\.jsonl has 1"], "--compare", "one.jsonl"),
        score("a prediction that is no text", BAD_DATA, [r"numbers\.jsonl:2", "'prediction'", "a text"], predictions="numbers.jsonl"),
        score("score with a wrong label", BAD_DATA, [r"wrong_label\.tsv:3", "'label'", "'awful'", "positive"],
              references="wrong_label.tsv"),
    ]


def make_cases(folder, source):
    """All cases, and the spoilt files that they need, in `folder`."""
    return (command_line_cases() + config_cases(folder, source) + data_cases(folder, source) +
            run_folder_cases(folder, source) + model_folder_cases(folder, source) + growth_cases(source) +
            finetune_cases(folder, source) + score_cases(folder))
