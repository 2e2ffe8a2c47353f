"""The command line. Commands are frozen records; torch and diffusers are imported when one runs.

Nothing is imported here but the standard library's least, so that a signal meets a handler early.
"""

import signal
import sys
from types import FrameType

OUT_OF_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_AFTER = 0.3  # seconds


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it was done, 2 for what the user can mend, 4 out of memory, 130 stopped."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        from kvlock.cli.commands import parsed

        parsed(words).run()
    except (ValueError, ArithmeticError, OSError) as error:
        return _fail(2, str(error), error)
    except KeyboardInterrupt as error:
        return _fail(130, "interrupted", error)
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        if not isinstance(error, MemoryError) and not any(w in said for w in OUT_OF_MEMORY):
            raise
        advice = (
            "out of memory; try --offload model, --tile-vae, --size, a shorter clip or a "
            "smaller model (kvlock estimate says what each needs)"
        )
        return _fail(4, advice, error)
    return 0


def _fail(code: int, sentence: str, error: BaseException) -> int:
    """One line, with what was noted on the error on its way."""
    print(f"kvlock: {'; '.join([sentence, *getattr(error, '__notes__', ())])}", file=sys.stderr)
    return code


def run_and_exit() -> None:
    """The console script. A signal that stops it lets everything be put away first."""
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        if _imports(frame):  # compiled modules swallow the interrupt: it comes again
            signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER)
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, stop)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        code = main()
    except Exception:  # an import may have turned the interrupt into an error of its own
        if not stopped:
            raise
        code = 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.exit(128 + stopped[0] if stopped and code else code)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
