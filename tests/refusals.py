"""What the command line says when it refuses."""

from pofx.cli import main


def refused(capsys, *arguments):
    """The one sentence with which it is refused."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert err.startswith("pofx: ")
    assert "Traceback" not in err
    return err
