"""The asyncio SDK for the Gather API."""
