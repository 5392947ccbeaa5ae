"""How the workers and beat use Celery: the application, its broker, which messages are taken, and signs of life."""
