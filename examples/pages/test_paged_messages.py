import pytest
from headwater import HeadwaterError, PageOptions
from headwater.testing import Deployment

from examples.pages import functions
from examples.pages.functions import articles


@pytest.fixture
def deployment() -> Deployment:
    deployment = Deployment(functions)
    for number in range(25):
        section = "sport" if number % 5 == 4 else "news"
        deployment.run_mutation(
            articles.publish, title=f"article {number}", section=section, words=number * 100
        )
    return deployment


def options(count: int, cursor: str | None = None, end: str | None = None) -> PageOptions:
    return PageOptions(num_items=count, cursor=cursor, end_cursor=end)


def test_pages_follow_one_another_without_gap_or_double(deployment: Deployment) -> None:
    titles: list[str] = []
    cursor, done, pages = None, False, 0
    while not done:
        page = deployment.run_query(articles.newest, section="news", options=options(6, cursor))
        titles += [article.title for article in page.page]
        cursor, done, pages = page.continue_cursor, page.is_done, pages + 1
    assert titles == [f"article {number}" for number in range(24, -1, -1) if number % 5 != 4]
    assert pages == 4


def test_a_later_page_begins_where_the_earlier_ended_whatever_comes_in_between(
    deployment: Deployment,
) -> None:
    first = deployment.run_query(articles.newest, section="news", options=options(3))
    deployment.run_mutation(articles.publish, title="breaking", section="news", words=1)
    deployment.run_mutation(articles.withdraw, article=first.page[2].id)
    second = deployment.run_query(articles.newest, section="news", options=options(3, first.continue_cursor))
    assert [article.title for article in first.page] == ["article 23", "article 22", "article 21"]
    assert [article.title for article in second.page] == ["article 20", "article 18", "article 17"]


def test_a_page_that_is_watched_grows_and_shrinks_between_its_ends(deployment: Deployment) -> None:
    watch = deployment.watch(articles.longest, section="sport", options=options(3))
    assert [article.words for article in watch.result.page] == [2400, 1900, 1400]
    deployment.run_mutation(articles.publish, title="between", section="sport", words=1500)
    deployment.run_mutation(articles.publish, title="below", section="sport", words=100)
    assert [article.words for article in watch.result.page] == [2400, 1900, 1500, 1400]


def test_ranges_are_paged_too(deployment: Deployment) -> None:
    page = deployment.run_query(articles.longest, section="sport", options=options(10), at_least=1000)
    assert ([article.words for article in page.page], page.is_done) == ([2400, 1900, 1400], True)


def test_rows_of_a_page_may_be_made(deployment: Deployment) -> None:
    page = deployment.run_query(articles.teasers, section="sport", options=options(2))
    assert [(row.title, row.minutes) for row in page.page] == [("article 24", 12), ("article 19", 10)]
    assert not page.is_done


def test_a_cursor_belongs_to_its_query(deployment: Deployment) -> None:
    page = deployment.run_query(articles.newest, section="news", options=options(3))
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(articles.longest, section="news", options=options(3, page.continue_cursor))
    assert caught.value.code == "invalid_cursor"
