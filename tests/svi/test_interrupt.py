"""An interrupt is neither lost nor in the middle of a step."""

import os
import signal
import threading

import pytest

from pyroqmri.svi.interrupt import interrupts_between_steps


def test_an_interrupt_waits_for_the_end_of_the_step():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_between_steps() as check:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the rest of the step")
        check()
        done.append("never")
    assert done == ["the rest of the step"]


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interrupts_between_steps():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on after two interrupts")


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with interrupts_between_steps() as check:
        check()
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_touched():
    found = []

    def work():
        before = signal.getsignal(signal.SIGINT)
        with interrupts_between_steps() as check:
            check()
            found.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
