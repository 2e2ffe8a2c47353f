"""The command line as a user meets it: files, messages, exit codes. Runs on a tiny random Wan-VACE."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import kvlock.editing.outputs
from kvlock.cli import main
from kvlock.media.mask_files import dilate_mask, read_mask
from kvlock.media.video import read_video
from kvlock.methods.catalogue import METHODS
from kvlock.methods.options import flat
from kvlock.shapes.scenes import write_scene
from support import tiny

FILES = {"edited.mp4", "comparison.mp4", "sheet.png", "trace.json", "trace.png", "run.json"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clip, its mask, and a tiny model."""
    root = tmp_path_factory.mktemp("world")
    write_scene(0, root)
    tiny.vace_pipe().save_pretrained(root / "model")
    return root


@pytest.fixture
def arguments(world, tmp_path):
    """A valid call; tests change one thing each."""
    return {
        "": str(world / "source.mp4"),
        "--mask": str(world / "mask.mp4"),
        "--prompt": "a red cat",
        "--model": str(world / "model"),
        "--steps": "3",
        "--out": str(tmp_path / "out"),
    }


def call(arguments, *flags):
    words = [w for name, value in arguments.items() for w in ([name, value] if name else [value])]
    return main(["edit", *words, *flags])


def test_an_edit_writes_its_files_and_can_be_made_again_to_the_byte(arguments, tmp_path, capsys):
    assert call(arguments, "--threshold", "0.02") == 0
    out = tmp_path / "out"
    assert {f.name for f in out.iterdir()} == FILES
    said = capsys.readouterr().out
    assert re.search(
        r"PSNR [\d.]+ dB, SSIM [\d.]+ \(the source through resize and VAE: [\d.]+ dB", said
    )
    assert "clip: edited at its own size 96x96" in said
    run = json.loads((out / "run.json").read_text())
    job = run["job"]
    assert job["config"]["signal"]["threshold"] == 0.02 and job["prompts"] == ["a red cat"]
    assert run["background"][0]["psnr"] > run["background"][0]["psnr_ceiling"]
    assert {"torch", "diffusers", "kvlock", "python"} <= set(run["versions"])
    assert len(json.loads((out / "trace.json").read_text())) == 3
    edited, source = (read_video(p, 99) for p in (out / "edited.mp4", arguments[""]))
    assert edited.frames.shape == source.frames.shape and edited.times == source.times

    assert main(["edit", "--from", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    for name in FILES - {"run.json"}:
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_an_mp4_as_out_is_the_edited_clip_alone(arguments, tmp_path):
    arguments["--out"] = str(tmp_path / "edit.mp4")
    assert call(arguments, "--lossless") == 0
    assert [f.name for f in tmp_path.iterdir()] == ["edit.mp4"]
    edited, source = (read_video(p, 99).frames for p in (tmp_path / "edit.mp4", arguments[""]))
    far = ~dilate_mask(read_mask(arguments["--mask"], *source.shape[:3]).mask, 9)
    assert torch.equal(edited[far], source[far])


@pytest.mark.parametrize("method", ["plain", "rigid", "fixed-0.5", "paper-literal"])
def test_methods_run(arguments, method, tmp_path):
    arguments["--method"] = method
    assert call(arguments, "--branches", "sequential", "--detection", "global") == 0
    job = json.loads((tmp_path / "out" / "run.json").read_text())["job"]
    config = METHODS[method]
    assert job["branches"] == "sequential" and job["config"]["signal"]["detection"] == "global"
    assert job["config"]["guidance"]["guidance_scale"] == flat(config)["guidance_scale"]
    assert (job["config"]["lock"] is None) == (config.lock is None)


def test_a_method_with_a_config_of_its_own_runs_and_is_made_again(arguments, tmp_path):
    arguments["--method"] = "flowedit-masked"
    assert call(arguments) == 0
    out = tmp_path / "out"
    run = json.loads((out / "run.json").read_text())
    assert run["job"]["config"]["masked"] is True and "signal" not in run["job"]["config"]
    assert main(["edit", "--from", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    assert (out / "edited.mp4").read_bytes() == (tmp_path / "again" / "edited.mp4").read_bytes()


def test_a_clip_that_does_not_fit_comes_back_at_its_own_size(world, tmp_path, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(6):
        Image.fromarray(np.full((50, 71, 3), 40 * i, np.uint8)).save(frames / f"{i}.png")
    mask = np.zeros((50, 71), np.uint8)
    mask[10:20, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out.mp4"
    words = [
        str(frames),
        "--mask",
        str(tmp_path / "mask.png"),
        "--prompt",
        "x",
        "--steps",
        "1",
        "--out",
        str(out),
    ]
    assert main(["edit", *words, "--model", str(world / "model"), "--fps", "12"]) == 0
    clip = read_video(out, 99)
    assert clip.frames.shape == (6, 50, 71, 3) and clip.rate == 12
    said = capsys.readouterr().out
    assert "edited at 64x48, enlarged to 71x50 inside the mask; outside it the source's own" in said
    assert "6 frames, for the edit 9 by repeating the last" in said


def _refused(arguments, capsys, pattern, *flags):
    """Exit code 2, one line that matches, nothing written."""
    import pathlib

    out = pathlib.Path(arguments["--out"])
    before = sorted(p.name for p in out.parent.glob("*")) if out.parent.is_dir() else []
    assert call(arguments, *flags) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(pattern, said), said
    assert (
        len([line for line in said.splitlines() if line.startswith("kvlock:")]) == 1
        and "Traceback" not in said
    )
    assert (sorted(p.name for p in out.parent.glob("*")) if out.parent.is_dir() else []) == before


@pytest.mark.parametrize(
    "change, pattern",
    [
        ({"": "nowhere.mp4"}, "nowhere.mp4: no such file"),
        ({"": ""}, "CLIP is missing"),
        ({"--mask": "nowhere.png"}, "nowhere.png: no such mask"),
        ({"--mask": " "}, "--mask is missing"),
        ({"--prompt": "  "}, "--prompt is missing"),
        ({"--model": "wan3"}, "'wan3' is neither a known name"),
        ({"--model": "wan2.1-vase-1.3b"}, "did you mean wan2.1-vace-1.3b?"),
        (
            {"--model": ""},
            "--model is missing; here could be used: .*shapes and shapes-t2v, the toy",
        ),
        ({"--method": "magic"}, "'magic' is unknown; expected one of kv-lock"),
        ({"--method": "kvlock"}, "'kvlock' is unknown; did you mean kv-lock?"),
        ({"--method": "plain", "--threshold": "0.1"}, "threshold has no effect with plain"),
        (
            {"--method": "plain", "--fusion-ratio": "0.1"},
            "has no effect with plain, which has no lock",
        ),
        ({"--device": "tpu"}, "device 'tpu' is unknown"),
        ({"--dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"--steps": "0"}, "num_inference_steps is 0"),
        ({"--threshold": "-1"}, "threshold is -1.0; expected above 0"),
        ({"--size": "big"}, "expected WIDTHxHEIGHT"),
        ({"--dilate": "-3"}, "dilate is -3"),
        ({"--fps": "0"}, "expected above 0"),
        ({"--fps": "nan"}, "fps is nan"),
        ({"--seed": str(2**70)}, "seed is"),
        ({"--flow-shift": "0"}, "flow_shift is 0.0"),
        ({"--guidance-scale": "0"}, "guidance_scale is 0.0; expected 1"),
        ({"--lock-steps": "20"}, "lock_steps is 20"),
        ({"--out": "/nowhere/at/all"}, "/nowhere/at does not exist"),
        ({"--out": "edit.mov"}, "ends in .mp4"),
        ({"--out": __file__}, "is a file; give another name"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_sentence(arguments, capsys, change, pattern):
    _refused(arguments | change, capsys, pattern)


def test_a_bad_replay_is_one_sentence(arguments, capsys, tmp_path):
    for text in (
        "",
        "[]",
        '{"arguments": "x", "config": {}}',
        '{"arguments": {"no": 1}, "config": {}}',
    ):
        (tmp_path / "run.json").write_text(text)
        assert (
            main(["edit", "--from", str(tmp_path / "run.json"), "--out", str(tmp_path / "again")])
            == 2
        )
        assert "expected a run.json of kvlock edit" in capsys.readouterr().err
    _refused(arguments | {"--from": "run.json"}, capsys, "takes everything from the run.json; only")


def test_words_that_the_shapes_model_never_read_are_named(arguments, capsys):
    change = {"--model": "shapes", "--prompt": "a red corgi", "--steps": "1"}
    assert call(arguments | change) == 0
    said = capsys.readouterr().err
    assert (
        "shapes is the toy, it knows coloured shapes and nothing else (it has never read corgi)"
        in said
    )


def test_bad_files_are_one_sentence(arguments, capsys, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "empty.mp4").write_bytes(b"")
    (made / "text.mp4").write_text("not a video")
    whole = open(arguments[""], "rb").read()
    (made / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name, pattern in (
        ("empty", "is empty"),
        ("text", "cannot be decoded"),
        ("cut", "cut.mp4: "),
    ):
        _refused(arguments | {"": str(made / f"{name}.mp4")}, capsys, pattern)
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(made / "black.png")
    Image.fromarray(np.full((96, 96), 128, np.uint8)).save(made / "grey.png")
    Image.fromarray(np.full((48, 96), 255, np.uint8)).save(made / "small.png")
    masks = (
        ("black", "mask is empty"),
        ("grey", "not black and white"),
        ("small", "the mask is 96x48"),
    )
    for name, pattern in masks:
        _refused(arguments | {"--mask": str(made / f"{name}.png")}, capsys, pattern)
    np.save(made / "short.npy", np.ones((4, 96, 96), bool))
    _refused(arguments | {"--mask": str(made / "short.npy")}, capsys, "4 frames, the clip 9")


def test_a_full_mask_is_a_warning(arguments, capsys, tmp_path):
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(tmp_path / "white.png")
    assert call(arguments | {"--mask": str(tmp_path / "white.png"), "--steps": "1"}) == 0
    assert "the mask is full" in capsys.readouterr().err


def test_output_that_exists_is_kept_unless_told(arguments, capsys, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "edited.mp4").write_text("mine")
    (out / "notes.txt").write_text("keep")
    _refused(arguments, capsys, "not empty; give another folder or --overwrite")
    assert (out / "edited.mp4").read_text() == "mine"
    assert call(arguments | {"--steps": "1"}, "--overwrite") == 0
    assert {f.name for f in out.iterdir()} == FILES | {"notes.txt"}
    assert len(read_video(out / "edited.mp4", 99).frames) == 9


def test_a_clip_longer_than_a_known_model_takes_is_refused(arguments, capsys, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(40):
        Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(frames / f"{i}.png")
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "mask.png")
    change = {"": str(frames), "--mask": str(tmp_path / "mask.png"), "--model": "shapes"}
    _refused(arguments | change, capsys, "more than 33 frames")


def test_nan_and_interrupt_leave_nothing(arguments, capsys, tmp_path, monkeypatch):
    from kvlock.backbones.wan.vace import WanVACEBackbone

    def interrupted(*arguments):
        raise KeyboardInterrupt

    arguments["--method"] = "constant"
    predict = WanVACEBackbone.predict
    monkeypatch.setattr(WanVACEBackbone, "predict", lambda *a: predict(*a) * float("nan"))
    _refused(arguments, capsys, "no longer finite after step 0")
    monkeypatch.undo()
    monkeypatch.setattr(WanVACEBackbone, "predict", interrupted)
    assert call(arguments) == 130
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_sentence_and_leaves_nothing(arguments, tmp_path):
    """A file-size limit makes the system refuse to write, as a full disk does."""
    words = [w for name, value in arguments.items() for w in ([name, value] if name else [value])]
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from kvlock.cli import main;"
        "import kvlock.editing.outputs;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        f"sys.exit(main({['edit', *words]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_import_load_neither_torch_nor_diffusers():
    code = (
        "import sys, kvlock, kvlock.cli\n"
        "try: kvlock.cli.main(['edit', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "print(sorted({'torch', 'diffusers', 'matplotlib', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "--guidance-scale" in done.stdout and "omega_0" in done.stdout


def test_an_unknown_flag_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["edit", "--promt", "x"])
    assert stop.value.code == 2
    assert "--prompt" in capsys.readouterr().err


def test_models_prints_the_table(capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "wan2.1-vace" in said and "Apache-2.0" in said


def test_several_prompts_and_seeds_in_one_run(arguments, tmp_path, capsys):
    arguments["--method"] = "drop"
    assert call(arguments, "--prompt", "a blue dog", "--seeds", "0..1") == 0
    out = tmp_path / "out"
    folders = [f"variant-{i}" for i in range(1, 5)]
    assert {f.name for f in out.iterdir()} == {*folders, "sheet.png", "run.json"}
    assert all({f.name for f in (out / name).iterdir()} == FILES - {"run.json"} for name in folders)
    run = json.loads((out / "run.json").read_text())
    assert run["job"]["prompts"] == ["a red cat", "a blue dog"] and run["job"]["seeds"] == [0, 1]
    assert len(run["background"]) == 4
    assert len({(out / name / "edited.mp4").read_bytes() for name in folders}) == 4
    assert capsys.readouterr().out.count("background: PSNR") == 4
    assert main(["edit", "--from", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    for name in folders:
        again = tmp_path / "again" / name / "edited.mp4"
        assert (out / name / "edited.mp4").read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    "flags, pattern",
    [
        (("--seed", "1", "--seeds", "0..1"), "--seed and --seeds exclude each other"),
        (("--seeds", "99999999999999999999"), "--seeds is .*expected seeds from 0 to"),
        (("--fusion-ratio", "0.5", "--method", "drop"), "fusion_ratio has no effect with drop"),
        (("--seeds", "3..1"), "--seeds is '3..1'; expected a seed such as 0, or a range"),
        (("--background-seed", "-1"), "seed is -1; expected 0 to"),
        (("--prompt", " "), "--prompt is missing"),
        (("--source-refresh", "2"), "source_refresh has no effect with kv-lock, which has no drop"),
    ],
)
def test_variants_that_make_no_sense(arguments, capsys, flags, pattern):
    _refused(arguments, capsys, pattern, *flags)


def test_several_edits_need_a_folder(arguments, tmp_path, capsys):
    arguments["--out"] = str(tmp_path / "out.mp4")
    _refused(arguments, capsys, "is one file; several edits need a folder", "--seeds", "0..1")


def test_the_default_is_the_papers_method(arguments, tmp_path):
    assert call(arguments) == 0
    job = json.loads((tmp_path / "out" / "run.json").read_text())["job"]
    assert job["method"] == "kv-lock" and job["config"]["lock"]["fusion_ratio"] == "variance"
    assert job["composite"] is True


def test_what_does_not_fit_is_refused_and_what_saves_memory_is_said(
    arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: 1000)
    _refused(
        arguments,
        capsys,
        "the edit needs .* GB on cpu, which has .*--no-memory-check goes on",
    )
    monkeypatch.setattr("kvlock.cost.fitting.SMALL_BATCH_BYTES", 0)
    monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: 10**12)
    assert call(arguments, "--method", "constant") == 0
    assert "chosen to save memory: --branches sequential" in capsys.readouterr().out
    monkeypatch.setattr("kvlock.cost.estimate.device_bytes", lambda device: 1)
    arguments["--out"] = str(tmp_path / "again")
    assert call(arguments, "--no-memory-check") == 0
    assert "chosen to save memory: --branches sequential" in capsys.readouterr().out


def test_a_picture_that_cannot_be_made_does_not_cost_the_edit(
    arguments, tmp_path, capsys, monkeypatch
):
    def broken(*arguments):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(kvlock.editing.outputs, "contact_sheet", broken)
    assert call(arguments) == 0
    out = tmp_path / "out"
    assert {f.name for f in out.iterdir()} == FILES - {"sheet.png"}
    assert "sheet.png is missing, it could not be made (no fonts here)" in capsys.readouterr().out


def test_the_background_that_cannot_be_measured_does_not_cost_the_edit(
    arguments, tmp_path, capsys, monkeypatch
):
    from kvlock.backbones.wan.vace import WanVACEBackbone

    decode, calls = WanVACEBackbone.decode_video, []

    def once(self, latents):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("CUDA out of memory")
        return decode(self, latents)

    monkeypatch.setattr(WanVACEBackbone, "decode_video", once)
    assert call(arguments) == 0 and len(calls) == 2
    assert {f.name for f in (tmp_path / "out").iterdir()} == FILES
    assert "the background was not measured (CUDA out of memory)" in capsys.readouterr().out


def test_the_source_is_encoded_once_and_decoded_once_a_variant(arguments, monkeypatch):
    from kvlock.backbones.wan.vace import WanVACEBackbone

    calls = {"encode_video": [], "decode_video": []}
    for name, kept in calls.items():
        inner = getattr(WanVACEBackbone, name)
        monkeypatch.setattr(
            WanVACEBackbone,
            name,
            lambda self, x, inner=inner, kept=kept: kept.append(len(x)) or inner(self, x),
        )
    assert call(arguments, "--seeds", "0..2") == 0
    assert calls == {"encode_video": [1], "decode_video": [3, 1]}


def test_changed_inputs_are_refused_and_can_be_accepted(arguments, world, tmp_path, capsys):
    mask = tmp_path / "mask.png"
    Image.fromarray(np.pad(np.full((40, 40), 255, np.uint8), 28)).save(mask)
    assert call(arguments | {"--mask": str(mask)}) == 0
    Image.fromarray(np.pad(np.full((50, 50), 255, np.uint8), 23)).save(mask)
    again = ["edit", "--from", str(tmp_path / "out" / "run.json"), "--out", str(tmp_path / "again")]
    assert main(again) == 2
    assert "mask changed since" in capsys.readouterr().err and not (tmp_path / "again").exists()
    assert main([*again, "--accept-changes"]) == 0
    assert "warning: mask changed since" in capsys.readouterr().err


def test_a_schedule_that_decided_nothing_is_explained(arguments, capsys):
    assert call(arguments, "--threshold", "1e-9") == 0
    said = capsys.readouterr().out
    assert (
        "alpha stood at 1 in every lock step" in said and "omega stood at its upper clamp" in said
    )
    assert "try --threshold" in said


def test_a_composite_can_be_left_out(arguments, tmp_path):
    assert call(arguments, "--no-composite", "--lossless") == 0
    shown = read_video(tmp_path / "out" / "edited.mp4", 99).frames
    source = read_video(arguments[""], 99).frames
    far = ~dilate_mask(read_mask(arguments["--mask"], *source.shape[:3]).mask, 9)
    assert not torch.equal(shown[far], source[far])


def test_version_prints_all_that_moves_numbers(capsys):
    assert main(["--version"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("kvlock 0", "torch 2", "diffusers 0", "opencv", "scipy"))


@pytest.mark.parametrize("words, shown", [(["--help"], False), (["--help-all"], True)])
def test_the_short_help_leaves_the_advanced_options_out(words, shown):
    done = subprocess.run(
        [sys.executable, "-m", "kvlock.cli", "edit", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--prompt" in done.stdout and ("--apg-momentum" in done.stdout) == shown
    assert "default: None" not in done.stdout and "type: ignore" not in done.stdout


@pytest.mark.parametrize(
    "command", [["shapes", "train"], ["bench", "run"], ["bench"], ["shapes"], []]
)
def test_every_help_is_for_people(command):
    done = subprocess.run(
        [sys.executable, "-m", "kvlock.cli", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "type: ignore" not in done.stdout
