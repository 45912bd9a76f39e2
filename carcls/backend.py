"""Imports Keras and its backend without what they say of their own build.

Whatever is imported after this module finds Keras loaded: `from carcls.backend import keras`.

TensorFlow writes a dozen lines about itself to standard error while it is imported, from code that
no setting reaches. They are held back, and shown if the import fails.
"""

import os
import sys
import tempfile


def _import_quietly() -> None:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import keras

            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices()  # says more on the first look at the devices
        except Exception:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


_import_quietly()

import keras  # noqa: E402, F401  for those who import it from here
