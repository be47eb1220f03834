"""The tables of an inbox in a PostgreSQL database."""

from typing import Final

__all__ = ["SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION: Final = 1
# An event is in waiting or in ended. Neither holds its text, which can be a megabyte, so that a
# change of state doesn't write it again.
SCHEMA: Final = """
    CREATE TABLE version (version integer NOT NULL);
    INSERT INTO version VALUES (1);
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        key text NOT NULL UNIQUE,
        name text NOT NULL,
        text text NOT NULL,
        received_at float8 NOT NULL,
        receiver text NOT NULL,
        tenant text,
        synthetic boolean NOT NULL,
        signed boolean NOT NULL,
        default_event text
    );
    CREATE TABLE subjects (
        subject text PRIMARY KEY,
        state text NOT NULL,
        synthetic boolean NOT NULL,
        event_id bigint NOT NULL,
        seen_at float8 NOT NULL
    );
    CREATE INDEX subjects_by_age ON subjects (seen_at);
    CREATE TABLE waiting (
        event_id bigint PRIMARY KEY,
        receiver text NOT NULL,
        waits_for text NOT NULL DEFAULT '',
        due_at float8 NOT NULL,
        starts integer NOT NULL DEFAULT 0,
        token text
    );
    CREATE INDEX waiting_due ON waiting (receiver, waits_for, due_at, event_id);
    CREATE INDEX waiting_claimed ON waiting (token, due_at) WHERE token IS NOT NULL;
    CREATE TABLE ended (
        event_id bigint PRIMARY KEY,
        state text NOT NULL CHECK (state IN ('done', 'ignored', 'dead')),
        ended_at float8 NOT NULL
    );
    CREATE INDEX ended_by_age ON ended (state, ended_at, event_id);
    CREATE TABLE handled (
        event_id bigint NOT NULL,
        handler text NOT NULL,
        state text NOT NULL CHECK (state IN ('done', 'failed', 'dead')),
        failures integer NOT NULL DEFAULT 0,
        due_at float8,
        ended_at float8,
        error text,
        PRIMARY KEY (event_id, handler)
    );
    CREATE INDEX handled_dead ON handled (ended_at) WHERE state = 'dead';
    CREATE TABLE handlers (
        receiver text NOT NULL,
        handler text NOT NULL,
        events text NOT NULL,
        until float8 NOT NULL,
        PRIMARY KEY (receiver, handler)
    );
"""
