from trio_rpc.testing import open_session_pair

from jobs import Jobs


async def test_render_reports_each_frame(autojump_clock):
    progress = []
    async with open_session_pair({"jobs": Jobs()}) as (_, session):
        jobs = session.proxy("jobs", Jobs)
        assert await jobs.render(3, progress.append) == "rendered 3 frames"
    assert progress == [1, 2, 3]
