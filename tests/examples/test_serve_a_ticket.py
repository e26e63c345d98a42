"""The example server as a process of its own, asked over HTTP: right answers, batches, refusals, and how it ends."""

from __future__ import annotations

import io
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import lth_sparse as lth
from lth_sparse import data, models
from lth_sparse.settings.config import Config, DataConfig
from tests.conftest import error_line

SCRIPT = Path(__file__).parents[2] / "examples" / "serve_a_ticket.py"
SEED = 3


class Server:
    """A process of the server on a free port."""

    def __init__(self, *arguments: object, script: tuple[str, ...] = (str(SCRIPT),)) -> None:
        command = [sys.executable, *script, *map(str, arguments), "--port=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def client(self) -> httpx.Client:
        """A client of the server, once that answers."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if " answers on " in line:
                return httpx.Client(base_url=line.split(" answers on ")[1].split(";")[0], timeout=60)
        raise AssertionError(self.process.communicate()[1])

    def stop(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status, and what it wrote to standard error."""
        self.process.send_signal(by)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


def pruned() -> tuple[torch.nn.Module, models.Network, dict[str, torch.Tensor]]:
    """A network for digits with new weights, and a mask of half of them."""
    network = models.Network("small", (1, 8, 8), 10)
    model = models.build(network, seed=SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # New weights give all images nearly the same probabilities.
    random = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(module.weight.shape, generator=random) < 0.5
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    return model, network, masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run.safetensors` says of its images what a run's tickets say: the data set and the settings.

    `own.safetensors` says the mean and the deviation, its classes have no names, and its weights are so large that its
    output is finite for black images alone.
    """
    folder = tmp_path_factory.mktemp("tickets")
    model, network, masks = pruned()
    settings = Config(seed=SEED, data=DataConfig(dataset="digits")).to_json()
    run = {"dataset": "digits", "config": settings}
    lth.save_ticket(folder / "run.safetensors", model, masks, network=network, metadata=run)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(1e30 * parameter.sign() if parameter.dim() > 1 else torch.zeros_like(parameter))
    own = {"mean": [0.0], "deviation": [1.0]}
    lth.save_ticket(folder / "own.safetensors", model, masks, network=network, metadata=own)
    return folder


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[dict[str, Server]]:
    """Started together, since most of a start is imports. `patient` and `stopped` have few places and wait for more."""
    few = ("--waiting=3", "--wait-ms=2000")
    short = "from serving import application; application.UPLOAD_SECONDS = 3; import serve_a_ticket as s"
    hasty = ("-c", f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); {short}; sys.exit(s.main())")
    made = {
        "quick": Server(folder / "run.safetensors", "--wait-ms=50", "--batch-size=8"),
        "patient": Server(folder / "own.safetensors", *few),
        "stopped": Server(folder / "own.safetensors", *few, script=hasty),
    }
    try:
        yield made
        assert made["quick"].stop(by=signal.SIGINT) == (0, ""), "Ctrl-C ends it well, and nothing was too much"
    finally:
        for server in made.values():
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def quick(servers: dict[str, Server]) -> Iterator[httpx.Client]:
    with servers["quick"].client() as client:
        yield client


@pytest.fixture(scope="module")
def patient(servers: dict[str, Server]) -> Iterator[httpx.Client]:
    with servers["patient"].client() as client:
        yield client


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    """As a run of that seed has them: its mean and deviation are those of what it trains on."""
    return data.load(DataConfig(dataset="digits"), SEED)


@pytest.fixture(scope="module")
def expected(folder: Path, digits: data.Dataset) -> torch.Tensor:
    """The probabilities that dense PyTorch gives for the test images, [N, 10]."""
    model = lth.load_ticket(folder / "run.safetensors").eval()
    with torch.no_grad():
        return model(digits.normalized(digits.test.images)).softmax(1)


def encoded(image: Image.Image, name: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def png(pixels: torch.Tensor) -> bytes:
    """uint8 [1, H, W] as a file."""
    return encoded(Image.fromarray(pixels[0].numpy()))


BLACK, WHITE = png(torch.zeros(1, 8, 8, dtype=torch.uint8)), png(torch.full((1, 8, 8), 255, dtype=torch.uint8))


def sent(client: httpx.Client, images: list[bytes]) -> list[httpx.Response]:
    """All at once, each by a thread of its own."""
    with ThreadPoolExecutor(len(images)) as threads:
        return list(threads.map(lambda image: client.post("/predict", content=image), images))


def metrics(client: httpx.Client) -> dict[str, float]:
    return client.get("/metrics").json()


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_right(response: httpx.Response, expected: torch.Tensor) -> bool:
    given = torch.tensor(response.json()["probabilities"])
    return torch.allclose(given, expected, rtol=0, atol=1e-5) and response.json()["class"] == int(expected.argmax())


def test_answers_are_dense_pytorchs_and_classes_have_their_names(
    quick: httpx.Client, digits: data.Dataset, expected: torch.Tensor
) -> None:
    for number in range(5):
        response = quick.post("/predict", content=png(digits.test.images[number]))
        assert response.status_code == 200
        assert is_right(response, expected[number])
        assert response.json()["name"] == str(response.json()["class"])
    assert not torch.allclose(expected[0], expected[1], atol=1e-3), "these images tell right answers from wrong ones"


def test_other_formats_and_colours_are_what_pillow_makes_of_them(
    quick: httpx.Client, folder: Path, digits: data.Dataset
) -> None:
    model = lth.load_ticket(folder / "run.safetensors").eval()
    image = Image.fromarray(digits.test.images[0, 0].numpy()).convert("RGB")
    image.putpixel((2, 2), (250, 10, 10))
    for name in ("JPEG", "BMP"):
        body = encoded(image, name)
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(body)).convert("L")))[None, None]
        with torch.no_grad():
            wanted = model(digits.normalized(pixels)).softmax(1)[0]
        assert is_right(quick.post("/predict", content=body), wanted), name


def test_clients_at_once_are_batched_and_each_gets_its_own_answer(
    quick: httpx.Client, digits: data.Dataset, expected: torch.Tensor
) -> None:
    before = metrics(quick)
    responses = sent(quick, [png(image) for image in digits.test.images[:32]])
    for response, wanted in zip(responses, expected, strict=False):
        assert is_right(response, wanted)
    after = metrics(quick)
    assert after["answered"] == before["answered"] + 32
    assert after["mean_batch"] > 1.5
    assert 0 < after["p50_ms"] <= after["p95_ms"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "no image of a known format; expected PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", 400, "no image of a known format; expected PNG"),
        (WHITE[:-30], 400, "the image is broken: "),
        (encoded(Image.new("L", (9, 8))), 422, "the image is 9x8; the network takes 8x8"),
        (encoded(Image.new("I;16", (8, 8))), 422, "mode I;16; expected 8 bits"),
        (encoded(Image.new("1", (12000, 8000))), 400, "could be decompression bomb"),
        (bytes(10 * 2**20 + 1), 413, "larger than 10,485,760 bytes"),
    ],
    ids=["empty", "another format", "cut off", "size", "16 bits", "bomb", "large"],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_a_sentence(
    quick: httpx.Client, body: bytes, status: int, told: str
) -> None:
    failed = metrics(quick)["failed"]
    response = quick.post("/predict", content=body)
    assert (response.status_code, told in response.json()["detail"]) == (status, True), response.text
    assert metrics(quick)["failed"] == failed + 1
    assert quick.post("/predict", content=WHITE).status_code == 200


def test_a_large_body_of_untold_size_is_refused_while_it_arrives(quick: httpx.Client) -> None:
    response = quick.post("/predict", content=iter([bytes(2**20)] * 12))
    assert response.status_code == 413


def test_a_client_that_leaves_breaks_no_batch(
    quick: httpx.Client, digits: data.Dataset, expected: torch.Tensor
) -> None:
    answered = metrics(quick)["answered"]
    address = (quick.base_url.host, quick.base_url.port)
    for whole in (True, False):
        with socket.create_connection(address) as leaving:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(WHITE)}\r\n\r\n".encode()
            leaving.sendall(head + (WHITE if whole else WHITE[:-1]))
        responses = sent(quick, [png(image) for image in digits.test.images[:4]])
        assert all(is_right(response, wanted) for response, wanted in zip(responses, expected, strict=False))
    wait_until(lambda: metrics(quick)["answered"] == answered + 9)
    assert metrics(quick)["unanswered"] == 0


def test_health_says_what_is_served(quick: httpx.Client) -> None:
    assert quick.get("/health").json() == {"status": "ok", "network": "small", "input_shape": [1, 8, 8], "classes": 10}


def test_no_answer_waits_for_the_client_to_acknowledge_the_part_before(quick: httpx.Client) -> None:
    """Which takes 40 ms or more each time; the fastest of many calls is faster however busy the machine is."""
    times = []
    for _ in range(30):
        began = time.perf_counter()
        quick.get("/health")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.035


def test_too_much_load_is_refused_and_what_was_accepted_is_answered(patient: httpx.Client) -> None:
    before = metrics(patient)
    with ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(patient.post, "/predict", content=BLACK) for _ in range(3)]
        wait_until(lambda: metrics(patient)["unanswered"] == 3)
        for response in sent(patient, [BLACK] * 5):
            assert (response.status_code, response.headers["retry-after"]) == (429, "1")
            assert response.json()["detail"] == "too many images wait; try again"
        assert metrics(patient)["unanswered"] == 3, "what was accepted still waits"
        assert [each.result().status_code for each in accepted] == [200] * 3
    after = metrics(patient)
    assert (after["refused"] - before["refused"], after["answered"] - before["answered"]) == (5, 3)


def test_a_batch_that_fails_is_told_so_and_the_server_lives_on(patient: httpx.Client) -> None:
    failing = sent(patient, [BLACK, WHITE])
    assert [response.status_code for response in failing] == [500, 500]
    assert failing[0].json()["detail"] == "the network failed: the network's output is not finite"
    answer = patient.post("/predict", content=BLACK)
    assert (answer.status_code, answer.json()["name"]) == (200, None)


def test_sigterm_answers_what_waits_and_ends_with_status_0(servers: dict[str, Server]) -> None:
    """Also beside a client that has sent a part of its image, for which the server would wait for ever."""
    server = servers["stopped"]
    with server.client() as client, ThreadPoolExecutor(3) as threads:
        address = (client.base_url.host, client.base_url.port)
        assert client.post("/predict", content=BLACK).status_code == 200
        with socket.create_connection(address) as stalled:
            stalled.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbeginning")
            waiting = [threads.submit(client.post, "/predict", content=BLACK) for _ in range(3)]
            wait_until(lambda: metrics(client)["unanswered"] == 3)
            status, said = server.stop()
            assert [each.result().status_code for each in waiting] == [200] * 3
            assert (status, said) == (0, "")
            assert stalled.recv(100).startswith(b"HTTP/1.1 408")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the server says of a command line that it refuses."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    return error_line(capsys.readouterr().err)


def test_a_port_that_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(monkeypatch, capsys, folder / "own.safetensors", "--port", port)
    assert f"error: --host 127.0.0.1 --port {port}: " in said
    assert "Address already in use" in said


def test_tickets_that_cannot_be_served(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((folder / "own.safetensors").read_bytes()[:-1])
    model, network, masks = pruned()
    made = {
        "unknown": {},
        "function": {"dataset": "json:loads", "config": Config().to_json()},
        "two": {"mean": [0.5, 0.5], "deviation": [1, 1]},
        "names": {"mean": [0.5], "deviation": [1], "classes": ["one", "two"]},
        "colour": {"dataset": "digits", "config": Config().to_json()},
    }
    for name, metadata in made.items():
        if name == "colour":
            model = models.build(network := models.Network("small", (3, 8, 8), 10), seed=0)
            masks = {"output": masks["output"]}
        lth.save_ticket(tmp_path / f"{name}.safetensors", model, masks, network=network, metadata=metadata)
    for name, told in {
        "nowhere": "No such file",
        "damaged": "damaged",
        "unknown": "does not say how its images were normalised",
        "function": "does not say how its images were normalised",
        "two": "expected 1 numbers, as many above 0",
        "names": "names of 10 classes or none",
        "colour": "is for images of (3, 8, 8) and 10 classes; digits",
    }.items():
        path = tmp_path / f"{name}.safetensors"
        said = refused(monkeypatch, capsys, path)
        assert str(path) in said
        assert told in said


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "httpx"])
def test_a_package_that_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "serving"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert refused(monkeypatch, capsys).endswith(f"error: {name} is missing: pip install fastapi uvicorn httpx")
