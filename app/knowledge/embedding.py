"""What makes vectors of texts: OpenAI, a small model in this process, or nothing, which is the default."""

import asyncio
import importlib.util
import platform
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graph.masking import Masker, MaskingError

if TYPE_CHECKING:
    from graph.llms.openai_settings import Settings as OpenAISettings

MAX_TEXT = 4_000  # characters of one text
WITHIN_S = 10.0


class EmbeddingFailed(Exception):
    """There are no vectors now; the text says why. Nothing is lost: words and signature find without them."""


class EmbeddingRefused(EmbeddingFailed):
    """Something in one of the texts is not taken, now or later."""


class EmbedderError(ValueError):
    """An embedder cannot be used; the text says what to do."""


class Embedder(Protocol):
    """Texts of like meaning become vectors that point the same way."""

    @property
    def name(self) -> str:
        """Vectors of another name are no use beside these: ``openai:text-embedding-3-small:512``."""

    @property
    def dimensions(self) -> int:
        """Of each vector."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text. Raises EmbeddingFailed."""

    def mask(self, text: str) -> str:
        """A whole text as ``embed`` may see it. What is to be cut is cut afterwards: no mask knows half a secret."""

    async def aclose(self) -> None:
        """Free what it holds."""


class MaskedEmbedder:
    """Another embedder, that sees masked texts only."""

    def __init__(self, embedder: Embedder, masker: Masker) -> None:
        self._embedder, self._masker = embedder, masker

    @property
    def name(self) -> str:
        """The other's."""
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        """The other's."""
        return self._embedder.dimensions

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A text that cannot be masked stays here: its vector is that of no text at all. Raises EmbeddingFailed."""
        return await self._embedder.embed(await asyncio.to_thread(lambda: [self._seen(text) for text in texts]))

    def mask(self, text: str) -> str:
        """Without what is secret; empty where it cannot be masked."""
        try:
            return self._masker.mask(text)
        except MaskingError:
            return ""

    async def aclose(self) -> None:
        """Free what it holds."""
        await self._embedder.aclose()

    def _seen(self, text: str) -> str:
        return self.mask(text)[:MAX_TEXT].strip() or "-"


def how_to_get_wordllama(machine: str, python: tuple[int, int]) -> str:
    """What to do where it is not installed; there is not one for every machine and every Python."""
    if machine == "aarch64" or python >= (3, 14):
        there_is_none = f"there is no wordllama for Python {python[0]}.{python[1]} on {machine}"
        return f"{there_is_none}: set AUTOPILOT_EMBEDDER=openai, or leave it unset"
    return "wordllama is not installed: `pip install '.[embeddings]'` in the folder that the product came from"


class WordLlamaEmbedder:
    """Averaged word vectors out of a wheel: no key, nothing leaves, a tenth of a millisecond for a text."""

    name = "wordllama:l2_supercat:256"
    dimensions = 256

    def __init__(self) -> None:
        if importlib.util.find_spec("wordllama") is None:
            raise EmbedderError(how_to_get_wordllama(platform.machine(), sys.version_info[:2]))

    @cached_property
    def _model(self) -> Any:
        import wordllama

        folder = Path(wordllama.__file__).parent  # its weights are in the wheel; without this it looks for a download
        return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """On a thread: the first call reads 16 MB."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._model.embed(texts, norm=True).tolist()
        return vectors

    def mask(self, text: str) -> str:
        """As it is: nothing leaves."""
        return text

    async def aclose(self) -> None:
        """It holds nothing but memory."""


class OpenAIEmbedder:
    """``/embeddings`` of OpenAI, or of any server at OPENAI_BASE_URL that speaks it."""

    def __init__(self, settings: "OpenAISettings", model: str, dimensions: int) -> None:
        if settings.api_key is None:
            raise EmbedderError("it needs OPENAI_API_KEY; without a key there is wordllama")
        from openai import AsyncAzureOpenAI, AsyncOpenAI

        key = settings.api_key.get_secret_value()
        self._client: AsyncOpenAI
        if settings.api_version:
            self._client = AsyncAzureOpenAI(
                api_key=key, azure_endpoint=settings.base_url, api_version=settings.api_version, max_retries=1
            )
        else:
            self._client = AsyncOpenAI(api_key=key, base_url=settings.base_url, max_retries=1)
        self._model, self.dimensions = model, dimensions
        self.name = f"openai:{model}:{dimensions}"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Within ten seconds. Raises EmbeddingFailed."""
        from openai import BadRequestError, OpenAIError, UnprocessableEntityError

        try:
            async with asyncio.timeout(WITHIN_S):
                answer = await self._client.embeddings.create(
                    model=self._model, input=list(texts), dimensions=self.dimensions, encoding_format="float"
                )
        except TimeoutError:
            raise EmbeddingFailed(f"{self._model} did not answer within {WITHIN_S:.0f} s") from None
        except OpenAIError as error:  # whose text may quote what was sent
            status = getattr(error, "status_code", "")
            refused = isinstance(error, BadRequestError | UnprocessableEntityError)
            failed = EmbeddingRefused if refused else EmbeddingFailed
            raise failed(f"{self._model}: {type(error).__name__} {status}".rstrip()) from None
        found = [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
        if len(found) != len(texts) or any(len(vector) != self.dimensions for vector in found):
            raise EmbeddingFailed(f"{self._model} did not give a vector of {self.dimensions} numbers for each text")
        return found

    def mask(self, text: str) -> str:
        """As it is: see MaskedEmbedder."""
        return text

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._client.close()
