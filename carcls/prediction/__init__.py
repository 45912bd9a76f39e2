import carcls.backend  # noqa: F401  before anything else imports Keras
