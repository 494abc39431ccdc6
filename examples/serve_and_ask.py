"""Starts a server on a free port, asks it over HTTP for answers and for codes, and ends it."""

import json
import subprocess
import sys
from typing import Any
from urllib.request import Request, urlopen


def ask(url: str, route: str, body: dict[str, Any]) -> Any:
    """POSTs JSON and returns the answer's."""
    data = json.dumps(body).encode()
    request = Request(f"{url}{route}", data, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main(bundle: str = "bundles/all-MiniLM-L6-v2") -> None:
    command = [sys.executable, "-m", "bitheads", "serve", "--bundle", bundle, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = listening_url(server)
            texts = ["What a lovely film.", "Shares fell 8 percent on Monday."]
            answered = ask(url, "/v1/predict", {"inputs": texts, "tasks": ["sentiment", "topic"]})
            for text, answers in zip(texts, answered["predictions"], strict=True):
                told = [f"{task} {a['label']}" for task, a in answers.items() if a["accepted"]]
                print(f"{text}: {', '.join(told)}")

            # Codes can be kept by whoever asked, and answered later: no encoder runs then.
            kept = ask(url, "/v1/features", {"inputs": texts})
            asked = {name: kept[name] for name in ("features", "spec_id")}
            later = ask(url, "/v1/predict_features", {**asked, "tasks": ["emotions"]})
            print([answers["emotions"]["labels"] for answers in later["predictions"]])
        finally:
            server.terminate()  # it answers what it has read, then ends


def listening_url(server: "subprocess.Popen[str]") -> str:
    """From the line in which the server says where it listens."""
    assert server.stdout is not None
    for line in server.stdout:
        message = json.loads(line)["message"]  # http://127.0.0.1:PORT: the bundle, and so on
        if message.startswith("http"):
            return str(message.split(": ")[0])
    raise SystemExit("the server ended before it listened")


if __name__ == "__main__":
    main(*sys.argv[1:])
