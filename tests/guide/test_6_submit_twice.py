"""An Idempotency-Key makes a submit safe to repeat: after a lost answer, after a timeout, from an eager double click."""

import httpx2

BODY = {"model": "openai/any", "prompt": "Charge me once"}


async def test_the_same_key_and_body_is_the_same_job(client: httpx2.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await client.post("/v1/jobs", json=BODY, headers=headers)
    again = await client.post("/v1/jobs", json=BODY, headers=headers)

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await client.get("/v1/jobs")).json()["data"]) == 1


async def test_the_same_key_with_another_body_is_a_mistake(client: httpx2.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order-17"}
    await client.post("/v1/jobs", json=BODY, headers=headers)
    answer = await client.post("/v1/jobs", json=BODY | {"max_tokens": 5}, headers=headers)

    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency_conflict"
