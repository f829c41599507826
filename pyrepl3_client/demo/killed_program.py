"""A program that the demo kills: a durable session whose cell asks for input and makes a payment.

    python -m pyrepl3_client.demo.killed_program STORE LOG hold|go

With `hold` the cell's second input is never answered; `go` is the next run of the same program.
"""

import asyncio
import sys
from pathlib import Path

import pyrepl3_client as pyrepl3

CODE = "name = input('name? '); paid = pay(21); sure = input('sure? '); f'{name} paid {paid}, {sure}'"


async def main(store: str, log: Path, mode: str) -> None:
    """Start the payment, or continue it from the store."""

    def log_line(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    async def answer(prompt: str) -> str:
        log_line(f"asked {prompt.strip()}")
        if prompt == "sure? " and mode == "hold":
            print("waiting", flush=True)
            await asyncio.Event().wait()
        return "yes" if prompt == "sure? " else "Ada"

    def pay(amount: int) -> int:
        log_line(f"paid {amount}")
        return amount * 2

    async with pyrepl3.open_session(
        "payment", store=store, capabilities={"pay": pay}, on_input=answer
    ) as session:
        result = await session.execute(CODE, execution_id="step-1")
        print(result.value, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
