"""Django's ORM doing real work: its migrations, requests on persistent connections, cursors, its test databases."""

import os
import sys
import tempfile
import uuid
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import django
from common import URL, migration, run, settled, sql, together

HERE = Path(__file__).parent
MIGRATIONS = tempfile.TemporaryDirectory()
sys.path[:0] = [str(HERE), MIGRATIONS.name]


def database(address=URL, **options):
    parts = urlsplit(address)
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username, "HOST": parts.hostname,
        "PORT": parts.port, "CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True, "OPTIONS": options,
    }


from django.conf import settings  # noqa: E402

settings.configure(
    DATABASES={
        "default": database(),
        # Values as parameters of the protocol, and statements prepared by the driver.
        "bound": database(server_side_binding=True, prepare_threshold=1),
        "pooled": database(pool={"min_size": 2, "max_size": 6}) | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False},
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "shop"],
    MIGRATION_MODULES={"shop": "shop_migrations"},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    TIME_ZONE="Asia/Tokyo",
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, IntegrityError, OperationalError, close_old_connections, connection, connections  # noqa: E402
from django.db import models, reset_queries, transaction  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from shop.models import Customer, Order  # noqa: E402

LATER = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


def fill(apps, schema_editor):
    customer = apps.get_model("shop", "Customer")
    for n in range(10):
        customer.objects.create(name=f"from a migration {n}")
    assert customer.objects.filter(level=7).count() == 10


def empty(apps, schema_editor):
    apps.get_model("shop", "Customer").objects.all().delete()


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("customer", "level", models.IntegerField(default=7)),
        migrations.RunPython(fill, empty),
        AddIndexConcurrently("customer", models.Index(fields=["since"], name="customer_since")),
        migrations.AlterField("order", "state", models.TextField(default="new", db_index=True)),
        # The model of `shop` does not know of it.
        migrations.RunSQL("ALTER TABLE shop_customer ALTER COLUMN level SET DEFAULT 7", migrations.RunSQL.noop),
        migrations.RunSQL("CREATE VIEW big_orders AS SELECT * FROM shop_order WHERE total > 1000", "DROP VIEW big_orders"),
    ]
"""


def own_migrations():
    call_command("makemigrations", "shop", verbosity=0)
    call_command("migrate", verbosity=0)
    (Path(MIGRATIONS.name) / "shop_migrations" / "0002_later.py").write_text(LATER)
    __import__("importlib").invalidate_caches()
    call_command("migrate", verbosity=0)
    # Back and forth again, as a deployment that is taken back.
    call_command("migrate", "shop", "0001", verbosity=0)
    call_command("migrate", "shop", "0002", verbosity=0)
    settled()
    connection.close()
    # A fresh connection reads the catalogue and the list of migrations from a replica.
    call_command("migrate", verbosity=0, check_unapplied=True)
    with connection.cursor() as cursor:
        columns = [column.name for column in connection.introspection.get_table_description(cursor, "shop_customer")]
    assert "level" in columns, columns
    connection.close()


def requests(alias, threads=8, turns=5):
    customers, orders = Customer.objects.using(alias), Order.objects.using(alias)

    def work(number):
        for turn in range(turns):
            close_old_connections()  # as at the start of each request
            name = f"{alias} {number}/{turn}"
            with transaction.atomic(using=alias):
                customer = customers.create(name=name, tags=["a"], facts={"n": number})
                done = []
                transaction.on_commit(lambda: done.append(1), using=alias)
                try:
                    with transaction.atomic(using=alias):
                        customers.create(name=name)
                except IntegrityError:
                    pass
                else:
                    raise AssertionError("the key was not checked")
                orders.bulk_create(
                    Order(customer=customer, key=uuid.uuid4(), total=Decimal(n), took=timedelta(days=n), scan=bytes([n]))
                    for n in range(20))
                assert not done
            assert done == [1]
            # What this connection wrote, it reads.
            assert orders.filter(customer__name=name).aggregate(models.Sum("total"))["total__sum"] == 190
            found = orders.select_related("customer").get(customer=customer, total=3)
            assert (bytes(found.scan), found.took, found.customer.facts) == (b"\x03", timedelta(days=3), {"n": number})
            assert customers.filter(pk=customer.pk, facts__n=number, tags__contains=["a"]).exists()
            customer.tags.append("b")
            customer.save(update_fields=["tags"])
            assert customers.get(pk=customer.pk).tags == ["a", "b"]
            with transaction.atomic(using=alias):
                locked = orders.select_for_update(skip_locked=True).filter(customer=customer)[:5]
                assert orders.filter(pk__in=[order.pk for order in locked]).update(state="paid") == 5
            try:
                with transaction.atomic(using=alias):
                    orders.filter(customer=customer).update(state="lost")
                    raise KeyError("the view fails")
            except KeyError:
                pass
            assert orders.filter(customer=customer, state="paid").count() == 5
            try:
                orders.filter(customer=customer, total=1).update(total=-1)
            except IntegrityError:
                pass
            _, made = customers.get_or_create(name=name)
            assert not made
            customers.update_or_create(name=name, defaults={"facts": {"n": turn}})
            assert orders.filter(customer=customer, total__gt=10).delete()[0] == 9
        connections[alias].close()

    together(threads, work)
    settled()
    assert customers.filter(name__startswith=f"{alias} ").count() == threads * turns
    assert orders.filter(customer__name__startswith=f"{alias} ").count() == threads * turns * 11
    connections[alias].close()


def requests_on_persistent_connections():
    requests("default")


def requests_with_bound_values():
    requests("bound", threads=6, turns=4)


def requests_on_a_pool():
    requests("pooled", threads=10, turns=3)


def cursors():
    # Outside a transaction the backend's cursors are WITH HOLD: they outlive the statement that declared them.
    for alias in ["default", "bound"]:
        seen, read = 0, Order.objects.using(alias).order_by("pk")
        total = read.count()
        for order in read.iterator(chunk_size=50):
            seen += 1
            if seen % 100 == 0:
                assert Customer.objects.using(alias).filter(pk=order.customer_id).exists()
        assert seen == total > 500, (seen, total)
        one, two = read.iterator(chunk_size=10), read.reverse().iterator(chunk_size=10)
        assert next(one).pk < next(two).pk
        one.close(), two.close()
        with transaction.atomic(using=alias):
            assert sum(1 for _ in read.iterator(chunk_size=100)) == total
        assert sum(1 for _ in Customer.objects.using(alias).prefetch_related("orders").iterator(chunk_size=20)) > 40
        connections[alias].close()


def settings_and_errors():
    with connection.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        assert cursor.fetchone() == ("UTC",)  # set at the connection's start, by set_config
        for _ in range(5):
            assert Customer.objects.exists()
            cursor.execute("SHOW TimeZone")
            assert cursor.fetchone() == ("UTC",)
        cursor.execute("SET statement_timeout = '80ms'")
        try:
            cursor.execute("SELECT pg_sleep(60)")
        except OperationalError as error:
            assert error.__cause__.sqlstate == "57014"
        cursor.execute("RESET statement_timeout")
        try:
            cursor.execute("SELECT * FROM nowhere")
        except DatabaseError as error:
            assert error.__cause__.sqlstate == "42P01"
        assert connection.is_usable()
        cursor.execute("SELECT current_setting('transaction_isolation')")
        assert cursor.fetchone() == ("read committed",)
    with CaptureQueriesContext(connection) as captured:
        list(Customer.objects.raw("SELECT * FROM shop_customer WHERE id > %s LIMIT 3", [0]))
    assert len(captured) == 1
    assert "Scan" in Customer.objects.filter(pk=1).explain(analyze=True)
    reset_queries()
    connection.close()


def test_databases():
    """What a test runner does: a database is created, migrated, cloned for parallel runs, used, and all are dropped."""
    old = connection.settings_dict["NAME"]
    for again in [True, False]:  # the second finds what a run that was killed has left
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        Customer.objects.create(name="in the test database")
        connection.creation.clone_test_db("1", verbosity=0)
        connection.creation.clone_test_db("2", verbosity=0)
        assert Customer.objects.filter(name="in the test database").exists()
        # A test case is a transaction that is rolled back.
        for _ in range(3):
            with transaction.atomic():
                Customer.objects.create(name="of one case")
                transaction.set_rollback(True)
        assert not Customer.objects.filter(name="of one case").exists()
        for clone in ["1", "2"]:
            settings_of_clone = connection.creation.get_test_db_clone_settings(clone)
            copy = type(connections["default"])(settings_of_clone, alias=f"clone_{clone}")
            with copy.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM shop_customer")
                assert cursor.fetchone()[0] == 11
            copy.close()
        call_command("flush", verbosity=0, interactive=False)
        assert not Customer.objects.exists()
        for clone in ["1", "2"]:
            connection.creation.destroy_test_db(suffix=clone, verbosity=0)
        connection.close()
        if again:
            connection.settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = old
    connection.creation.destroy_test_db(old, verbosity=0)
    assert connection.settings_dict["NAME"] == old
    settled()
    assert not sql("SELECT 1 FROM pg_database WHERE datname LIKE 'test\\_' || %s || '%%'", old)
    connection.close()


def use(traffic, number):
    alias = f"{traffic.table}_{number}"
    connections.databases[alias] = connections.databases["default"] | database(traffic.url, prepare_threshold=2, server_side_binding=True)
    own = connections[alias]
    turn = 0
    while not traffic.over():
        turn += 1
        id = (turn * 7 + number) % 50 + 1
        try:
            with own.cursor() as cursor:
                cursor.execute(f"SELECT id, label, v FROM {traffic.table} WHERE id = %s", [id])
                traffic.check(*cursor.fetchone())
                cursor.execute(f"UPDATE {traffic.table} SET n = n + 1 WHERE id = %s", [id])
                traffic.written[number] += 1
            with transaction.atomic(using=alias), own.cursor() as cursor:
                cursor.execute(f"SELECT id, label, v FROM {traffic.table} WHERE id = %s", [id])
                traffic.check(*cursor.fetchone())
                cursor.execute(f"UPDATE {traffic.table} SET n = n + 1 WHERE id = %s", [id])
            traffic.written[number] += 1
        except DatabaseError as error:
            traffic.failure(getattr(error.__cause__, "sqlstate", None) or repr(error))
    own.close()


def migration_under_traffic():
    migration(use, expected=["0A000"], workers=4)


os.makedirs(f"{MIGRATIONS.name}/shop_migrations")
Path(MIGRATIONS.name, "shop_migrations", "__init__.py").touch()
run(f"Django {django.__version__}", [
    own_migrations, requests_on_persistent_connections, requests_with_bound_values, requests_on_a_pool, cursors,
    settings_and_errors, test_databases, migration_under_traffic,
], finish=MIGRATIONS.cleanup)
