"""Make a small registry that the service can start from: `python prepare.py [DIRECTORY]`, by default ./registry."""

import inspect
import shutil
import sys
from pathlib import Path

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings

HERE = Path(__file__).resolve().parent
PACKAGE = Path(la.__file__).resolve().parent
PLACES = [place / "templates" for place in (HERE.parent.parent, PACKAGE / "starter", PACKAGE.parent)]
TEMPLATES = next((place for place in PLACES if place.is_dir()), PLACES[0])  # beside this, or where pip put them


def main(directory: str = "registry") -> None:
    embeddings = HashingEmbeddings(256)
    passages = [
        {"id": f"shutil.{name}", "text": f"shutil.{name}\n{inspect.getdoc(getattr(shutil, name))}"}
        for name in ("copyfile", "copytree", "rmtree", "move", "which", "disk_usage", "make_archive")
    ]
    with la.init(directory) as registry:
        registry.log("rag-answer", la.Prompt.from_file(TEMPLATES / "rag_answer.j2"))
        kb = la.VectorIndex.build(passages, embeddings=embeddings, model=embeddings.model, index="Flat")
        registry.log("python-kb", kb)
        models = {
            "llm": la.ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2}),
            "embedder": la.ModelSpec("llmartifacts", embeddings.model, parameters={"dimension": 256}),
        }
        bundle = la.Bundle(models=models, inputs=["passages", "question"], parameters={"passages": 2})
        registry.log("python-models", bundle)
        done = registry.promote(
            ["rag-answer:v1", "python-kb:v1", "python-models:v1"], to="prod", reason="first release"
        )
    print(done)


if __name__ == "__main__":
    main(*sys.argv[1:])
