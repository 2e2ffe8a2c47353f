"""What each of several processes does in the same job folder; importable by a fresh process."""

from kvlock.work.folder import JobFolder


def contest(out, wins, start):
    folder = JobFolder(out)
    start.wait()
    for number in range(40):
        with folder.claimed([f"job-{number}"]) as mine:
            if mine:
                wins.put(number)
                with folder.writing(f"job-{number}", {}):
                    pass
