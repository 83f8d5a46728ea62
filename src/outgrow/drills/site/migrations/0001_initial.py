from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Execution",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("request", models.CharField(max_length=64, db_index=True)),
                ("execution", models.CharField(max_length=64)),
            ],
        ),
    ]
