"""The Django application of `django_work.py`."""
