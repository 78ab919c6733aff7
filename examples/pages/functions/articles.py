from headwater import Id, MutationCtx, Page, PageOptions, QueryCtx, Struct, mutation, query

from .schema import Article


class Teaser(Struct):
    id: Id[Article]
    title: str
    minutes: int


@query
def newest(ctx: QueryCtx, section: str, options: PageOptions) -> Page[Article]:
    """The articles of a section, the newest first."""
    return ctx.db.query(Article.by_section, section=section).order("desc").paginate(options)


@query
def longest(ctx: QueryCtx, section: str, options: PageOptions, at_least: int = 0) -> Page[Article]:
    """Pages of a range of an index: cursors are places in it, so nothing is skipped or shown twice."""
    found = ctx.db.query(Article.by_length, section=section).range(Article.words).gte(at_least)
    return found.order("desc").paginate(options)


@query
def teasers(ctx: QueryCtx, section: str, options: PageOptions) -> Page[Teaser]:
    """Pages of something made of documents: the page says where to go on, its rows are replaced."""
    page = ctx.db.query(Article.by_section, section=section).order("desc").paginate(options)
    rows = [Teaser(id=one.id, title=one.title, minutes=-(-one.words // 200)) for one in page.page]
    return Page(page=rows, is_done=page.is_done, continue_cursor=page.continue_cursor)


@mutation
def publish(ctx: MutationCtx, title: str, section: str, words: int) -> Id[Article]:
    return ctx.db.insert(Article(title=title, section=section, words=words))


@mutation
def withdraw(ctx: MutationCtx, article: Id[Article]) -> None:
    ctx.db.delete(article)
