"""What Alembic runs: the migrations, inside the transaction that `atlas.store.database` has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
