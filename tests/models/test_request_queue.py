"""Which requests go into a batch, and when."""

from pasture.models.request_queue import Request, RequestQueue


def queue(lengths, *, new_tokens=10, budget=100):
    """Requests with prompts of these lengths, all different; numbered as given."""
    requests = [Request(number, (number,) * length, seed=number) for number, length in enumerate(lengths)]
    return RequestQueue(requests, new_tokens=new_tokens, budget=budget)


def numbers(requests):
    return [request.number for request in requests]


def test_the_shortest_prompts_go_in_first_and_as_many_as_the_budget_holds():
    # 5 + 10 positions each: six are 90, and a seventh would make 105; with one of 10 + 10 in, five are 100.
    waiting = queue([10, 5, 5, 5, 5])
    assert numbers(waiting.enter(0)) == [1, 2, 3, 4, 0]
    assert not waiting
    waiting = queue([5] * 8)
    assert numbers(waiting.enter(0)) == [0, 1, 2, 3, 4, 5]
    assert len(waiting) == 2
    waiting = queue([5, 5, 5, 5, 5, 10])
    assert numbers(waiting.enter(0)) == [0, 1, 2, 3, 4]


def test_newcomers_wait_until_a_quarter_of_the_places_is_free():
    # Of 8 places (5 + 10 positions, budget 120), two.
    waiting = queue([5] * 11, budget=120)
    assert len(waiting.enter(0)) == 8
    assert waiting.enter(8) == []
    assert waiting.enter(7) == []
    assert numbers(waiting.enter(6)) == [8, 9]
    assert numbers(waiting.enter(0)) == [10]


def test_a_longer_prompt_leaves_fewer_places():
    # Beside prompts of 20, 100 // 30 = 3 fit; two are under way, so that one goes in.
    waiting = queue([20, 20])
    assert waiting.places == 3
    assert numbers(waiting.enter(2)) == [0]
    assert waiting.enter(3) == []


def test_requests_with_one_prompt_go_in_together():
    # 8 places, so that at most two of a prompt are held together.
    alike = [Request(number, (1 + number % 2, 0, 0, 0, 0), seed=number) for number in range(10)]
    waiting = RequestQueue(alike, new_tokens=10, budget=120)
    assert numbers(waiting.enter(0)) == [0, 2, 4, 6, 8, 1, 3]  # the next two do not both fit
    assert waiting.enter(7) == []
    assert numbers(waiting.enter(6)) == [5, 7]
    assert numbers(waiting.enter(6)) == [9]


def test_a_request_beyond_the_budget_goes_in_alone():
    waiting = queue([200, 300])
    assert numbers(waiting.enter(0)) == [0]
    assert waiting.enter(1) == []
    assert numbers(waiting.enter(0)) == [1]
    assert not waiting
    assert waiting.enter(0) == []
    assert waiting.places == 0
