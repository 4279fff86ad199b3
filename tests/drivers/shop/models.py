"""What the shop sells, and to whom."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=100, unique=True)
    tags = ArrayField(models.TextField(), default=list)
    facts = models.JSONField(default=dict)
    since = models.DateTimeField(auto_now_add=True)


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    key = models.UUIDField(unique=True)
    total = models.DecimalField(max_digits=12, decimal_places=3)
    state = models.CharField(max_length=10, default="new", db_index=True)
    took = models.DurationField(null=True)
    scan = models.BinaryField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(total__gte=0), name="total_is_not_negative")]
